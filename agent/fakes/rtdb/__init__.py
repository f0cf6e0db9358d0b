"""A Firebase Realtime Database on loopback.

It may import agent.fakes.
"""
