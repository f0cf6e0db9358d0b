"""The signed command: its fields, its signature, and the reasons to refuse one.

It may import agent.errors.
"""
