"""A net on the meta device: built, run and taken apart, shapes without numbers."""
