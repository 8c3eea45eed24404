"""What the reader of checkpoints raises."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read; the message says why and what to do."""
