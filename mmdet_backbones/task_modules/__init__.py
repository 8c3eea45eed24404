"""Parts of detectors that are not nets: anchors."""

from . import anchor_generator  # noqa: F401
