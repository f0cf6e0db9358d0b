"""The CloudEvents that flipback publishes: their types, and the log level of each.

It may import agent.commands and agent.errors.
"""
