"""Weights in and out: the files of PyTorch, ONNX, Caffe and others as checkpoints, and back."""

from tinyalex.convert.exporting import save_run, write
from tinyalex.convert.importing import read

__all__ = ["read", "save_run", "write"]
