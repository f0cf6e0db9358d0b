"""Would a flip happen now? The only place that decides ARMED or NOT ARMED.

It may import agent.config, agent.heartbeats, agent.state and lower.
"""
