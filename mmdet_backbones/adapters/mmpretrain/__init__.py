"""mmpretrain's nets."""

from . import backbone, named  # noqa: F401
