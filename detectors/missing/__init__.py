"""Samples that a window lacks (late, rejected, without an outcome), and what can still be judged without them.

It may import detectors.windows, detectors.conditions, detectors.sequential and lower floors.
"""
