"""Verdicts: what a condition says of the windows of a scope, its state over time, and why it is unknown.

It may import every other package of detectors.
"""
