"""Flags in a flagd file.

It may import agent.backends and agent.errors.
"""
