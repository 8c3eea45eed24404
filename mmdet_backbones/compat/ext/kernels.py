"""torchvision's kernels, imported at the first call: that import takes a second."""

from __future__ import annotations

from typing import Any

import torch


def torchvision_kernels() -> Any:
    """Return ``torch.ops.torchvision``, which torchvision fills when it is imported."""
    import torchvision  # noqa: F401

    return torch.ops.torchvision
