"""Flags in Cloud Firestore.

It may import agent.backends and agent.errors.
"""
