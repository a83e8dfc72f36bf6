"""A network as data, and one step of it."""
