"""What `flipback status` and `flipback explain` show, computed from topics.

It may import agent.state, agent.config, agent.events and lower floors.
"""
