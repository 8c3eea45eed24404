"""Where a checkpoint is, what format it has, and which tensors are in it."""
