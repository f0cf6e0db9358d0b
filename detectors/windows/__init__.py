"""Sums of counts over sliding windows, and the metrics that are computed from them.

It may import detectors.conditions and lower floors.
"""
