"""Checks after a flip: whether it took effect, and whether the service recovered.

It may import agent.state, agent.config and lower floors.
"""
