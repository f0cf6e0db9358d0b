"""Commands that a person gives: `flipback rollback`, `restore`, `halt` and `resume`.

It may import agent.deployment, agent.executor and lower floors.
"""
