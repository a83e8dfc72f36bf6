"""A run in time: how it starts, the loop, what it measures and says."""
