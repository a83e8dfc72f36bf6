"""A run as files: settings, log, checkpoints, and the weights in them."""
