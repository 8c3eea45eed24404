"""Shapes from memory are those that the operators would give."""

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmdet_backbones.shapes.repeated import repeated_shapes

NETS = ('resnet18', 'convnext_atto', 'swin_tiny_patch4_window7_224', 'test_vit')
SIZE = 224


def on_meta(name):
    with torch.device('meta'):
        return timm.create_model(name), torch.zeros(2, 3, SIZE, SIZE)


class Calls(TorchDispatchMode):
    """Counts operators that are really run; an empty tensor is an answer."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is not torch.ops.aten.empty_strided.default
        return func(*args, **(kwargs or {}))


def passed(net, image):
    """Output, and the gradients that there are."""
    output = net(image)
    grads = torch.autograd.grad(output.sum(), list(net.parameters()), allow_unused=True)
    shapes = [None if grad is None else (grad.shape, grad.stride()) for grad in grads]
    return output.shape, output.stride(), output.dtype, shapes


@pytest.mark.parametrize('name', NETS)
@pytest.mark.parametrize('training', [False, True])
def test_shapes_and_gradients_are_the_same(name, training):
    net, image = on_meta(name)
    net.train(training)
    with Calls() as all_calls:
        expected = passed(net, image)
    with Calls() as calls, repeated_shapes():
        assert passed(net, image) == expected
    assert calls.count < 0.8 * all_calls.count


def test_equal_numbers_of_other_types_give_other_types():
    whole = torch.zeros(2, dtype=torch.int64, device='meta')
    with repeated_shapes():
        for factor, dtype in ((1, torch.int64), (1.0, torch.float32)):
            for _ in range(2):
                assert (whole * factor).dtype == dtype


def test_tensors_with_numbers_are_computed():
    with repeated_shapes():
        for value in (1.0, 2.0):
            number = torch.full((2,), value)
            assert (number + 1).tolist() == [value + 1] * 2
            number.add_(1)
            assert number.tolist() == [value + 1] * 2


def test_what_is_written_in_place_is_what_was_given():
    with torch.device('meta'), repeated_shapes():
        for _ in range(2):
            tensor, out = torch.zeros(2, 3), torch.zeros(2, 3)
            assert tensor.relu_() is tensor
            assert tensor.unsqueeze_(0).shape == (1, 2, 3)
            assert tensor.transpose_(1, 2).shape == (1, 3, 2)
            assert torch.add(out, out, out=out) is out


@pytest.mark.parametrize('name', NETS)
def test_multiply_adds_are_counted_all_the_same(name):
    net, image = on_meta(name)
    with torch.no_grad(), FlopCounterMode(display=False) as expected:
        net(image)
    found = FlopCounterMode(display=False)
    with torch.no_grad(), repeated_shapes(), found:
        net(image)
    assert found.get_total_flops() == expected.get_total_flops() > 0
