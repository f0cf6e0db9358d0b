"""The signed command: its fields, its signature, its expiry, and the reasons to reject one.

It may import agent.errors.
"""
