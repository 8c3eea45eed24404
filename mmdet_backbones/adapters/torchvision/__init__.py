"""torchvision's nets."""

from . import backbone  # noqa: F401
