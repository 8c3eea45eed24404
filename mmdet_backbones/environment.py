"""The environment of this process: packages of extras, and variables for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec


def missing_extra(what: str, extra: str, *packages: str) -> str | None:
    """Say which optional packages something lacks.

    Args:
        what: That needs them, as it is written: ``'search'`` or ``'--format onnx'``.
        extra: Of this package, which installs them.
        *packages: By the names that are imported.

    Returns:
        The message with the line to write; None if all are there.
    """
    absent = [name for name in packages if find_spec(name) is None]
    if not absent:
        return None
    return (
        f'{what} needs {", ".join(absent)}, not installed here: write\n'
        f'  pip install "mmdet_backbones[{extra}]"'
    )


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Have environment variables of these values within it.

    Args:
        values: By name.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
