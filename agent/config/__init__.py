"""The configuration file: model, reading, checks, JSON Schema, and the connection to its brokers.

It may import agent.backends.settings, agent.commands and lower floors.
"""
