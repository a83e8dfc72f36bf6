"""Speed of the reference, by layer and beside PyTorch."""
