"""Reading the feed on the workers of a cluster: rings in memory, the runner's checkpoints as durability."""
