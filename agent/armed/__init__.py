"""Decides ARMED or NOT ARMED: whether a flip would happen now. Nothing else decides it.

It may import agent.config, agent.heartbeats, agent.state and lower floors.
"""
