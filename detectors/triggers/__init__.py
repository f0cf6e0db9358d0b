"""Verdicts: a condition on the windows of a scope, its state over time, and why a verdict is unknown.

It may import every other package of detectors.
"""
