"""A trained detector as one file for production, proven equal to what was trained."""
