"""Would a flip happen now? The one piece that says ARMED or NOT ARMED.

It may import agent.config, agent.heartbeats, agent.state and lower.
"""
