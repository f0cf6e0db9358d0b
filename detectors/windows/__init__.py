"""Sums of counts over sliding windows, of `max_scopes` scopes at most, and the metrics computed from them.

It may import detectors.conditions and lower floors.
"""
