"""Reads XML that came from somewhere as data, never as instructions."""

from __future__ import annotations

import re
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_DECLARED = re.compile(rb'^\s*<\?xml[^>]*encoding\s*=\s*["\']([\w.:-]+)["\']')
_LARGEST = 32 << 20


class XMLError(ValueError):
    """An XML file that cannot be read; says why."""


def parse(content: bytes) -> tuple[Element, str | None]:
    """Parse an XML file; entities are refused, nothing outside it is looked at.

    Args:
        content: The file.

    Returns:
        The root, and the encoding if that is neither UTF-8 nor what the file declares.

    Raises:
        XMLError: If it is empty, damaged, too large, or declares entities.
    """
    if not content.strip():
        raise XMLError('empty file')
    if len(content) > _LARGEST:
        raise XMLError(f'XML of {len(content) >> 20} MiB: at most {_LARGEST >> 20}')
    text, guessed = _decode(content)
    builder = TreeBuilder()
    # The encoding given here counts more than the one that the file declares.
    parser = expat.ParserCreate('utf-8')
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text.encode('utf-8', 'replace'), True)
    except expat.ExpatError as error:
        raise XMLError(f'damaged XML: {error}') from error
    return builder.close(), guessed


def _refuse(*_: object) -> NoReturn:
    raise XMLError('XML with entities, which may be an attack: refused')


def _decode(content: bytes) -> tuple[str, str | None]:
    declared = _DECLARED.match(content)
    if content.startswith((b'\xff\xfe', b'\xfe\xff')):
        encoding = 'utf-16'
    else:
        encoding = declared[1].decode('ascii') if declared else 'utf-8'
        if encoding.lower() in ('utf-8', 'utf8'):
            encoding = 'utf-8-sig'
    try:
        return content.decode(encoding), None
    except (UnicodeDecodeError, LookupError):
        return content.decode('latin-1'), 'Latin-1'
