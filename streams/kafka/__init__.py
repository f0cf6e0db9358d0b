"""Brokers and Faust: the one place that imports faust, aiokafka and mode (besides the emitter).

It may import the ground of streams.
"""
