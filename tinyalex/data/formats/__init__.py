"""Data sets as people have them, one layout a file."""
