"""Health over HTTP.

It may import agent.armed and lower.
"""
