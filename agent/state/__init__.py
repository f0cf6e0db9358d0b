"""Flags and incidents, read from compacted topics; which commands are allowed: managed flag, safe variant.

It may import agent.backends.contract, agent.commands, agent.events and lower floors.
"""
