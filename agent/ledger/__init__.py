"""The durable record of commands, and whether automation is halted.

It may import agent.heartbeats, agent.backends.contract, agent.events, agent.commands and lower floors.
"""
