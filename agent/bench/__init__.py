"""`flipback bench`: measures throughput, delays and memory on this machine, and states how.

It may import agent.demo.children, agent.config and lower floors, and streams.bench.
"""
