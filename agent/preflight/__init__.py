"""`flipback doctor`: checks without writing whether a flip would work now, and reports what is missing.

It may import agent.deployment, agent.executor, agent.telemetry and lower floors.
"""
