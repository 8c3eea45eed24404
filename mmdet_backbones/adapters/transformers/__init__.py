"""transformers' nets."""

from . import backbone  # noqa: F401
