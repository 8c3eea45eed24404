"""Which backbones can be used here, under one name each, and what they look like."""

from .entries import Entry, Source, find, load_source, resolve

__all__ = ['Entry', 'Source', 'find', 'load_source', 'resolve']
