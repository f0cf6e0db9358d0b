"""Checks of the watched telemetry: whether it arrives, and what is wrong with its records.

It may import agent.armed, agent.after_flip, agent.config and lower floors.
"""
