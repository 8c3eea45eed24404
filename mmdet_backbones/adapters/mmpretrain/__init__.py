"""mmpretrain's nets."""

from . import backbone, hierarchical, mobile  # noqa: F401
