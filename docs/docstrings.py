"""The little reStructuredText of our docstrings, as Markdown for the reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r':(?:class|func|data|meth|mod|attr|exc):`~?\.?([^`]+)`')
_EXAMPLE = re.compile(r'^(\s*)Example:$', re.MULTILINE)
_LINK = re.compile(r'`([^`<]+?)\s+<([^>]+)>`_')


class RestructuredText(griffe.Extension):
    """Turns roles into code and links into those of Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object as soon as it was read."""
        if obj.docstring is None:
            return
        text = _ROLE.sub(lambda m: f'`{m[1].rpartition(".")[2]}`', obj.docstring.value)
        text = _EXAMPLE.sub(r'\1Examples:', text)
        obj.docstring.value = _LINK.sub(r'[\1](\2)', text)
