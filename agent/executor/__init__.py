"""Executes commands: signature and expiry, limits, flip, read-back, and the events of each step.

It may import agent.ledger, agent.state, agent.config and lower floors.
"""
