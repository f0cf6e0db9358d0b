"""What a person orders: rollback and restore.

It may import agent.deployment, agent.executor and lower.
"""
