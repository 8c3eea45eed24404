"""The host libraries on today's Python and torch."""

from .hooks import install

__all__ = ['install']
