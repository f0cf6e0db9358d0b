"""The processes of a deployment: what each sees of the others, and what the command line sees of all.

It may import agent.views, agent.armed, agent.ledger, agent.telemetry and lower floors.
"""
