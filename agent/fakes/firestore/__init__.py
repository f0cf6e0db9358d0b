"""A fake of Cloud Firestore.

It may import agent.fakes.
"""
