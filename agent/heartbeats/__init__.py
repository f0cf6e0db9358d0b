"""Heartbeats: what each process publishes about itself every ten seconds, and which processes are alive.

It may import agent.logs and agent.errors.
"""
