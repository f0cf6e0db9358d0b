"""What each process of a deployment publishes of itself every ten seconds, and who is alive by that.

It may import agent.logs and agent.errors.
"""
