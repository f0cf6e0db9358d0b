"""Brings a flag from 0 to 100 %, a step at a time, each step behind a gate."""
