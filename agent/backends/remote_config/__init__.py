"""Flags in Firebase Remote Config.

It may import agent.backends and agent.errors.
"""
