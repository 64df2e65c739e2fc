"""What a run on one machine adds: lanes, the feed's dead letters, status page, terminal, demo."""
