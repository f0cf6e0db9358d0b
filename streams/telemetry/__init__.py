"""What services write: samples, columnar batches, and the emitter that sends them.

It may import detectors.
"""
