"""Flags in Firebase Realtime Database.

It may import agent.backends and agent.errors.
"""
