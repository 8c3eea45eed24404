"""Backbones written here: one file per family, one import line per family."""

# Families are added below.
