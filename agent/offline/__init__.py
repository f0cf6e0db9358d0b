"""Triggers without a broker: replay, backtest, simulation and unit tests.

It may import agent.decisions, agent.telemetry, agent.config and lower floors.
"""
