"""Images and labels from files: the built-in images, folders, archives, batches."""

from tinyalex.data.opening import open_data

__all__ = ["open_data"]
