"""Set functions: attention, pooling, DeepSets."""
