"""Sums of counts over sliding windows, and the metrics that are read from them.

It may import detectors.conditions and the ground of detectors.
"""
