"""Flag systems on loopback to rehearse with: the real protocols, real preconditions, and faults on order."""
