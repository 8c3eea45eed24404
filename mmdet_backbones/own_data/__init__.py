"""From a folder of one's own images to a data set that detectors read."""
