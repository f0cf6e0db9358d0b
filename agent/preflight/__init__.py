"""Would a flip work now, and what is missing if not.

It may import agent.deployment, agent.executor, agent.telemetry and lower.
"""
