"""What a person asks: status, and what happened and why.

It may import agent.state, agent.config, agent.events and lower.
"""
