"""The configuration file: model, reading, checks, schema, and the brokers that it names.

It may import agent.backends.settings, agent.commands and lower.
"""
