"""The process of `flipback run`: its roles, their wiring, and how it starts and ends.

It may import everything but the command line, the demo, the bench and the fakes.
"""
