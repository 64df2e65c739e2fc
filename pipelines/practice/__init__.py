"""Practice services on loopback for demo and tests: they speak the real protocols, faults included."""
