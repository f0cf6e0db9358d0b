"""A fake of Firebase Realtime Database.

It may import agent.fakes.
"""
