"""The driver of a delivery for clusters: keyed state and timers around the classes that lanes use too."""
