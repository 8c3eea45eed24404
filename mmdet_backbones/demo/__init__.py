"""Data, weights and report of the demo; imported by nothing else in the package."""
