"""The signed command: what it says, how it is signed, and why one is refused.

It may import agent.errors.
"""
