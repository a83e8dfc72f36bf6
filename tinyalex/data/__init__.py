"""From files to uint8 images and labels: the built-in images, folders, archives, batches."""
