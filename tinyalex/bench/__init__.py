"""How fast the reference is, by layer and beside PyTorch."""
