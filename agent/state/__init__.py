"""The state of flags and incidents, as the compacted topics record it.

It may import agent.backends.contract, agent.commands, agent.events and lower.
"""
