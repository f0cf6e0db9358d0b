"""`flipback bench`: what flipback reaches on this machine, each figure with the method that gave it."""
