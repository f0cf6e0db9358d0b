"""The processes of a deployment: this one among the others, and all of them seen from outside.

It may import agent.views, agent.armed, agent.ledger, agent.telemetry and lower.
"""
