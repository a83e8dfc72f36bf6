"""The machine below: GPUs and what is installed, memory, files, signals."""
