"""What the tables of cases do not show: edges, other paths, whole layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmdet_backbones.compat.ext import deform_conv, roi_pooling
from ops.case import mmcv_ops

pytestmark = pytest.mark.usefixtures('our_operators')


def _features(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_roi_align_refuses_negative_sizes():
    rois = torch.tensor([[0, 1.0, 1, 2, 2], [0, 3.0, 1, 1, 2]])
    with pytest.raises(ValueError, match=r'\[3\.0, 1\.0, 1\.0, 2\.0\].* RoI 1'):
        mmcv_ops().roi_align(torch.ones(1, 1, 4, 4), rois, 2, 1.0, 0, 'avg', True)


def test_roi_align_reads_channels_last():
    features = _features(2, 3, 9, 8)
    rois = torch.tensor([[1, 1.0, 1, 7, 6], [0, 0, 2, 5, 8]], dtype=torch.float64)
    for mode in ('avg', 'max'):
        usual = mmcv_ops().roi_align(features, rois, 3, 1.0, 0, mode, True)
        moved = features.to(memory_format=torch.channels_last)
        assert torch.equal(mmcv_ops().roi_align(moved, rois, 3, 1.0, 0, mode), usual)


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [False, True])
def test_deterministic_gradient_of_roi_align(ratio, aligned):
    """The path for CUDA under torch.use_deterministic_algorithms, run here."""
    features = _features(2, 3, 9, 8)
    rois = torch.tensor(
        [[1, 1.0, 1, 7, 6], [0, -3, 2, 5, 12], [0, 2, 2, 2, 2]], dtype=torch.float64
    )
    grad = _features(3, 3, 2, 3)
    ours = torch.zeros_like(features)
    roi_pooling._spread_average(grad, rois, ours, (0.5, ratio, aligned))
    features.requires_grad_()
    out = mmcv_ops().roi_align(features, rois, (2, 3), 0.5, ratio, 'avg', aligned)
    expected = torch.autograd.grad(out, features, grad)[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-14)


def test_regions_are_cut_into_runs(monkeypatch):
    from mmdet_backbones.compat.ext import roi_grid

    features = _features(2, 3, 9, 8)
    corner = _features(5, 2).abs() * 3
    rois = torch.cat((torch.ones(5, 1), corner, corner + 4), dim=1)
    whole = [
        mmcv_ops().roi_align(features, rois, 2, 1.0, 0, 'max', True),
        mmcv_ops().roi_pool(features, rois, 2, 1.0),
        mmcv_ops().deform_roi_pool(features, rois, None, 2, 1.0),
    ]
    monkeypatch.setattr(roi_grid, '_POINTS_AT_ONCE', 1)
    parts = [
        mmcv_ops().roi_align(features, rois, 2, 1.0, 0, 'max', True),
        mmcv_ops().roi_pool(features, rois, 2, 1.0),
        mmcv_ops().deform_roi_pool(features, rois, None, 2, 1.0),
    ]
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)


def test_roi_pool_gives_nothing_to_a_region_without_area():
    features = _features(1, 2, 6, 6).requires_grad_()
    rois = torch.tensor([[0, 4.5, 4.5, 2.6, 2.6]], dtype=torch.float64)
    out = mmcv_ops().roi_pool(features, rois, 2, 1.0)
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.autograd.grad(out.sum(), features)[0].count_nonzero() == 0


def _deform_conv(x, offset, weight, padding=1):
    return mmcv_ops().deform_conv2d(x, offset, weight, 1, padding)


def test_gradient_of_a_weight_is_not_an_old_one():
    """Both halves of the backward pass share a scratch tensor across calls."""
    x, weight = _features(2, 4, 5, 5), _features(6, 4, 3, 3)
    offset = _features(2, 18, 5, 5)
    for tensor in (x, weight, offset):
        tensor.requires_grad_()
    out = _deform_conv(x, offset, weight)
    first = torch.autograd.grad(out, weight, torch.ones_like(out), retain_graph=True)
    again = torch.autograd.grad(
        out, (weight, x), torch.ones_like(out) * 3, retain_graph=True
    )
    last = torch.autograd.grad(out, weight, torch.ones_like(out))
    torch.testing.assert_close(again[0], first[0] * 3, rtol=1e-12, atol=1e-12)
    assert torch.equal(first[0], last[0])


def test_gradient_of_a_weight_can_be_asked_alone():
    x, weight = _features(2, 4, 5, 5), _features(6, 4, 3, 3).requires_grad_()
    offset = _features(2, 18, 5, 5)
    out = _deform_conv(x, offset, weight)
    expected = torch.autograd.grad(out.square().sum(), weight, retain_graph=True)[0]
    torch.autograd.gradcheck(lambda w: _deform_conv(x, offset, w), weight)
    numbers = {'kW': 3, 'kH': 3, 'dW': 1, 'dH': 1, 'padW': 1, 'padH': 1}
    numbers |= {'dilationW': 1, 'dilationH': 1, 'group': 1, 'deformable_group': 1}
    grad = torch.ones_like(weight)
    deform_conv.deform_conv_backward_parameters(
        x, offset, 2 * out.detach(), grad, x.new_empty(0), x.new_empty(0),
        **numbers, scale=0.5, im2col_step=1,
    )  # fmt: skip
    torch.testing.assert_close(grad, 1 + 0.5 * expected, rtol=1e-12, atol=1e-12)


def test_scratch_memory_is_given_back():
    x, weight, offset = (
        _features(*s) for s in ((1, 2, 4, 4), (2, 2, 1, 1), (1, 2, 4, 4))
    )
    grad, scratch = _features(1, 2, 4, 4), x.new_empty(0)
    numbers = {'kW': 1, 'kH': 1, 'dW': 1, 'dH': 1, 'padW': 0, 'padH': 0}
    numbers |= {'dilationW': 1, 'dilationH': 1, 'group': 1, 'deformable_group': 1}
    deform_conv.deform_conv_backward_input(
        x, offset, grad, torch.zeros_like(x), torch.zeros_like(offset), weight,
        scratch, **numbers, im2col_step=1,
    )  # fmt: skip
    for _ in range(2):
        result = torch.zeros_like(weight)
        deform_conv.deform_conv_backward_parameters(
            x, offset, grad, result, scratch, x.new_empty(0),
            **numbers, scale=1, im2col_step=1,
        )  # fmt: skip
        assert scratch.numel() == 0
        assert result.count_nonzero() == result.numel()
        grad.mul_(2)
    out = _deform_conv(x, offset, weight.requires_grad_(), padding=0)
    expected = torch.autograd.grad(out, weight, grad / 2)[0]
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_padding_has_no_offset_gradient_in_a_new_layer():
    """torchvision alone gives a gradient there; mmcv's kernel has none."""
    x, weight = _features(1, 4, 5, 5), _features(6, 4, 3, 3)
    offset = torch.zeros(1, 18, 5, 5, dtype=torch.float64, requires_grad=True)
    out = _deform_conv(x, offset, weight)
    grad = torch.autograd.grad(out.sum(), offset)[0].view(3, 3, 2, 5, 5)
    assert grad[0, :, :, 0].count_nonzero() == 0
    assert grad[:, 0, :, :, 0].count_nonzero() == 0
    assert grad[1, 1].count_nonzero() > 0


def test_attention_has_no_gradient_one_pixel_outside():
    value = _features(1, 16, 1, 3)
    shapes, starts = torch.tensor([[4, 4]]), torch.tensor([0])
    # Pixel coordinates (-1, 1.25), (1.25, -1), (4, 1.25) and (1.25, 1.25).
    pixels = torch.tensor([[-1, 1.25], [1.25, -1], [4, 1.25], [1.25, 1.25]])
    location = ((pixels + 0.5) / 4).double().view(1, 1, 1, 1, 4, 2).requires_grad_()
    weights = torch.ones(1, 1, 1, 1, 4, dtype=torch.float64)
    function = mmcv_ops().multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    out = function.apply(value, shapes, starts, location, weights, 64)
    grad = torch.autograd.grad(out.sum(), location)[0].view(4, 2)
    assert grad[:3].count_nonzero() == 0
    assert grad[3].count_nonzero() == 2


def test_naive_carafe_has_the_gradients_of_carafe(our_operators):
    features, masks = _features(1, 4, 3, 4), _features(1, 18, 6, 8)
    grad = _features(1, 4, 6, 8)
    results = [torch.zeros_like(features), torch.zeros_like(masks)]
    our_operators.carafe_naive_backward(
        grad, features, masks, *results, kernel_size=3, group_size=2, scale_factor=2
    )
    leaves = (features.requires_grad_(), masks.requires_grad_())
    out = mmcv_ops().carafe(*leaves, 3, 2, 2)
    expected = torch.autograd.grad(out, leaves, grad)
    for one, other in zip(results, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('momentum', [0.1, torch.tensor(0.1)])
def test_sync_bn_is_batch_norm_in_one_process(momentum):
    function = mmcv_ops().sync_bn.SyncBatchNormFunction
    norm = nn.BatchNorm2d(4, momentum=0.1)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1, 2, -1]))
        norm.bias.copy_(torch.tensor([0.1, 0, -2, 1]))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    x = _features(3, 4, 5, 6).float().requires_grad_()
    leaves = (x, norm.weight, norm.bias)
    ours = function.apply(
        x, mean, var, norm.weight, norm.bias, momentum, 1e-5, None, 1, 'default'
    )
    expected = norm(x)
    back = _features(3, 4, 5, 6).float()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean, norm.running_mean)
    torch.testing.assert_close(var, norm.running_var)
    for one, other in zip(
        torch.autograd.grad(ours, leaves, back),
        torch.autograd.grad(expected, leaves, back),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_focal_loss_in_half_precision():
    logits = _features(9, 5).half()
    target = torch.arange(9) % 6
    ours = mmcv_ops().sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    exact = mmcv_ops().sigmoid_focal_loss(
        logits.double(), target, 2.0, 0.25, None, 'none'
    )
    assert ours.dtype == torch.half
    torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('SAConv2d', {'in_channels': 4, 'out_channels': 6, 'kernel_size': 3}),
        ('ModulatedDeformConv2dPack', {'in_channels': 4, 'out_channels': 6}),
        ('DeformConv2dPack', {'in_channels': 4, 'out_channels': 6}),
        ('CARAFEPack', {'channels': 4, 'scale_factor': 2}),
    ],
)
def test_layers_of_configs_train(name, arguments):
    if name.startswith(('Mod', 'Def')):
        arguments = {**arguments, 'kernel_size': 3, 'padding': 1}
    if name == 'SAConv2d':
        arguments = {**arguments, 'padding': 1, 'use_deform': True}
    layer = getattr(mmcv_ops(), name)(**arguments)
    layer(_features(2, 4, 8, 10).float()).square().sum().backward()
    without = {key for key, p in layer.named_parameters() if p.grad is None}
    # Not used while the layer deforms.
    assert without <= {'bias'}


@pytest.mark.parametrize('name', ['DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack'])
def test_roi_layers_of_configs_train(name):
    layer = getattr(mmcv_ops(), name)((7, 7), 4, 16, 0.25, 0, 0.1)
    x = _features(1, 4, 12, 12).float().requires_grad_()
    layer(x, torch.tensor([[0, 3.0, 5, 30, 40]])).square().sum().backward()
    assert x.grad.count_nonzero() > 0
    assert all(p.grad is not None for p in layer.parameters())


def test_operators_in_plain_python_run_on_this_torch():
    ops = mmcv_ops()
    x = _features(2, 4, 6, 6).float()
    for mode in ('top', 'bottom', 'left', 'right'):
        assert ops.CornerPool(mode)(x).shape == x.shape
    assert ops.point_sample(x, torch.rand(2, 5, 2)).shape == (2, 4, 5)
    cell = ops.merge_cells.SumCell(4, 4)
    assert cell(x, x, out_size=(3, 3)).shape == (2, 4, 3, 3)
    assert ops.CrissCrossAttention(8)(_features(1, 8, 4, 4).float()).shape[1] == 8
