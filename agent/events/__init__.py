"""CloudEvents that flipback publishes: their types, and how loud each is in the log.

It may import agent.commands and agent.errors.
"""
