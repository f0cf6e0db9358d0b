"""The executor role: signed commands in, each handed to a function.

It may import streams.kafka and the ground of streams.
"""
