"""What to do with a batch until its events are delivered: all thinking, no threads, no clock."""
