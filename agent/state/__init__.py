"""Flags and incidents, read from compacted topics, and which commands they allow: managed flag, safe variant, expiry.

It may import agent.backends.contract, agent.commands, agent.events and lower floors.
"""
