"""Nets made fast in torch."""
