"""A trained detector as one graph that other engines run."""
