"""A run in time: how it starts, the loop, what it says, and the trained network that it leaves."""
