"""From a firing trigger to a signed command: which flag, with what evidence, and at most once.

It may import agent.executor.audit, agent.state, agent.config and lower floors.
"""
