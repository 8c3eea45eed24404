"""A trained detector as one file for production, proven equal to what was trained.

``export(ExportOptions(model, out))`` is all of it.
"""

from .exporting import export
from .options import ExportOptions

__all__ = ['ExportOptions', 'export']
