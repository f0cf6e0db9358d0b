"""Fakes of flag systems on loopback: the real protocols and preconditions, with faults on request.

It may import agent.backends and lower floors.
"""
