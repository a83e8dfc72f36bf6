"""Second words of the seeds [seed, word, ...]: each purpose has a stream of its own."""

STEP = 1  # crops, flips, colours and dropout of a training step
WEIGHTS = 2  # initial parameters
ORDER = 0x0D  # of the images in an epoch
SAMPLE = 0x5A  # of the images for the mean
