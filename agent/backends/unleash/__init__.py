"""Flags in Unleash.

It may import agent.backends and agent.errors.
"""
