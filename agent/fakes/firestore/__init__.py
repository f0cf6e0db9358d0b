"""A Cloud Firestore on loopback.

It may import agent.fakes.
"""
