"""The judges of a backend: the reference, numerical gradients, PyTorch."""
