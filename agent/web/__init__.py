"""The HTTP endpoints of liveness and readiness.

It may import agent.armed and lower floors.
"""
