"""Finds every mistake of a config before the first iteration."""
