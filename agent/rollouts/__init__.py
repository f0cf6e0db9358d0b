"""Rollouts: brings a flag from 0 to 100 %, a step at a time, each behind a gate. Imports config and below."""
