"""Reads, understands and writes the config of a detector."""
