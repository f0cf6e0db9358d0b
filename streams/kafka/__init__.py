"""Brokers and Faust: the only package, with the emitter and the bench, that imports faust, aiokafka or mode.

It may import floor 0 of streams.
"""
