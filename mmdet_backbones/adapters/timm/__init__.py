"""timm's nets."""

from . import backbone  # noqa: F401
