"""Which backbones can be used here, under one name each, and what they look like."""

from .entries import find, load_source, resolve
from .entry import Entry, Source

__all__ = ['Entry', 'Source', 'find', 'load_source', 'resolve']
