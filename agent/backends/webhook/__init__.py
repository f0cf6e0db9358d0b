"""The webhook.

It may import agent.backends and agent.errors.
"""
