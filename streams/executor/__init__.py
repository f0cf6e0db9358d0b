"""The executor role: reads signed commands and hands each to a function.

It may import streams.kafka and floor 0 of streams.
"""
