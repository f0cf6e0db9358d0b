"""A Firebase Remote Config on loopback.

It may import agent.fakes.
"""
