"""What a trained network answers: errors, neighbours, units, what of an image gets through."""
