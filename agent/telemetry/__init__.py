"""Which of the telemetry that a configuration watches comes, and what is wrong with it.

It may import agent.armed, agent.after_flip, agent.config and lower.
"""
