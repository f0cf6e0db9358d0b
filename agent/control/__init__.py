"""Commands that a person gives: `flipback rollback` and `flipback restore`.

It may import agent.deployment, agent.executor and lower floors.
"""
