"""What a run on one machine adds: lanes, status, terminal, practice services."""
