"""Statistics that stay valid however often they are checked, and the healthy rate that the fast tier learns.

It may import detectors.state and detectors.errors.
"""
