"""Flags behind a webhook.

It may import agent.backends and agent.errors.
"""
