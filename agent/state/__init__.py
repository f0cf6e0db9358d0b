"""What compacted topics say of flags and incidents.

It may import agent.backends.contract, agent.commands, agent.events and lower.
"""
