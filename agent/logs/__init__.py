"""Log lines: their format, and the levels of libraries.

It may import nothing of the agent.
"""
