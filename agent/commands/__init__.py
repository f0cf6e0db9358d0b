"""The signed command: its fields, its signature, and the reasons to reject one.

It may import agent.errors.
"""
