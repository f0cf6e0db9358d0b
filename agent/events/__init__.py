"""The CloudEvents that flipback publishes: their types, and the sentence and log level of each.

It may import agent.commands and agent.errors.
"""
