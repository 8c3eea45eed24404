"""Matches tensors to a net, fits them, tells what was done, and refuses."""
