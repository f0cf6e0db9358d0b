"""The state of flags and incidents, read from compacted topics.

It may import agent.backends.contract, agent.commands, agent.events and lower floors.
"""
