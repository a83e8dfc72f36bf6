"""Answers of a trained network: errors, neighbours, units, what of an image gets through."""
