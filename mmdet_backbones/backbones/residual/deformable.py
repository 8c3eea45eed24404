"""Deformable convolutions inside residual blocks, the ``dcn`` of mmdet's nets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from .plugins import is_flags

_DCN_TYPES = ('DCN', 'DCNv2')
# What a block decides itself for its 3x3 convolution.
_CONV_ARGUMENTS = (
    'in_channels',
    'out_channels',
    'kernel_size',
    'stride',
    'padding',
    'dilation',
    'bias',
)


def deformable(dcn: dict[str, Any] | None, stride: int) -> dict[str, Any] | None:
    """Return the deformable convolution of one block, a dict of its own.

    Args:
        dcn: That of the stage, or None. ``fallback_on_stride=True`` in it leaves
            blocks that stride their ordinary convolution.
        stride: Of the block.
    """
    if dcn is None or (stride > 1 and dcn.get('fallback_on_stride', False)):
        return None
    return {key: value for key, value in dcn.items() if key != 'fallback_on_stride'}


def read_any_format(conv: Any) -> None:
    """Let a deformable convolution of mmcv take maps of any memory format.

    Compiled mmcv reads the memory of the map, the offsets and the weight as dense NCHW
    whatever it is: channels-last maps give wrong values (DCNv2) or an error (DCN).
    """
    conv.register_forward_pre_hook(_dense_inputs)
    if hasattr(conv, 'conv_offset'):
        conv.conv_offset.register_forward_hook(_dense_output)


def _dense_inputs(conv: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    weight = getattr(conv, 'weight', None)
    if weight is not None and not weight.is_contiguous():
        weight.data = weight.data.contiguous()
    return inputs[0].contiguous(), *inputs[1:]


def _dense_output(conv: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.contiguous()


def dcn_problems(
    dcn: dict[str, Any] | None,
    stage_with_dcn: Sequence[bool] | None,
    stages: int,
    lacks: Collection[str],
) -> list[str]:
    """Name what is wrong with the deformable convolutions that were asked for.

    Args:
        dcn: Their kind, as given, or None.
        stage_with_dcn: One flag per stage, or None.
        stages: Number of stages.
        lacks: Arguments that the net itself gives to them, besides those of every
            3x3 convolution of a block.
    """
    example = (False,) + (True,) * (stages - 1)
    if dcn is None:
        if not isinstance(stage_with_dcn, Sequence) or not any(stage_with_dcn):
            return []
        return [
            f'stage_with_dcn={stage_with_dcn!r} needs a deformable convolution: write '
            "dcn=dict(type='DCNv2', deform_groups=1)"
        ]
    problems = []
    kind = dcn.get('type') if isinstance(dcn, dict) else None
    if not isinstance(kind, type) and kind not in _DCN_TYPES:
        problems.append(
            f'dcn must be a dict whose type is {" or ".join(map(repr, _DCN_TYPES))} or '
            f"a class, got {dcn!r}: write dcn=dict(type='DCNv2', deform_groups=1)"
        )
    given = dcn if isinstance(dcn, dict) else {}
    taken = [key for key in (*_CONV_ARGUMENTS, *lacks) if key in given]
    if taken:
        problems.append(
            f'dcn does not take {", ".join(taken)}, which the net decides, got {dcn!r}'
        )
    if not is_flags(stage_with_dcn, stages) or not any(stage_with_dcn or ()):
        problems.append(
            f'with dcn, stage_with_dcn must hold {stages} booleans, one per stage, and '
            f'one of them True, got {stage_with_dcn!r}: write stage_with_dcn={example}'
        )
    return problems
