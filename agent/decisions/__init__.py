"""From a firing trigger to a signed command.

It may import agent.executor.audit, agent.state, agent.config and lower.
"""
