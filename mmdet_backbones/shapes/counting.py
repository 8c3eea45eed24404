"""Operations of a net, counted while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)


def _attention(*shapes: Sequence[int], **_: Any) -> int:
    return sdpa_flop_count(*shapes[:3])


def _attention_backward(*shapes: Sequence[int], **_: Any) -> int:
    return sdpa_backward_flop_count(*shapes[:4])


# Attention as the CPU runs it, which torch's counter does not know and leaves out.
_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        _attention_backward
    ),
}


@contextmanager
def counting(net: nn.Module, train: bool = False) -> Iterator[FlopCounterMode]:
    """Count the operations of what runs inside.

    Args:
        net: That runs.
        train: Whether it is trained. If not, its parameters ask for no gradients
            inside: under ``torch.no_grad()`` too a view of one may, in PiT, and
            torch's counter stops there.

    Yields:
        The counter; a multiply-add counts as two.
    """
    learning = [p for p in net.parameters() if p.requires_grad and not train]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
            yield counter
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
