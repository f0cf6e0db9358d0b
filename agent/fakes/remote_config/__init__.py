"""A fake of Firebase Remote Config.

It may import agent.fakes.
"""
