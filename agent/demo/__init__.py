"""`flipback demo`: a small real service has a bad release, and flipback turns it off while you watch.

It may import agent.telemetry, agent.config and lower floors, and streams.
"""
