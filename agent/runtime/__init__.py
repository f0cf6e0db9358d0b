"""The process of `flipback run`: its roles, start and end.

It may import everything but the command line, the demo, the bench and the fakes.
"""
