"""Durable files: locks, and blocking work off the event loop.

It may import agent.errors.
"""
