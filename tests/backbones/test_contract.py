"""The rules that hold for every backbone, on one net of each kind.

The same rules on every published net are in test_contract_variants.py, those that
need two processes in test_contract_ddp.py.
"""

import copy
import pickle

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from variants import config, every

from mmdet_backbones.shapes.build import on_meta


def build(name: str, **arguments) -> nn.Module:
    return MODELS.build(config(name, **arguments))


def build_on_meta(name: str, **arguments) -> nn.Module:
    """A net that is asked for its levels, or that is refused: it needs no numbers."""
    return on_meta(lambda: build(name, **arguments))


def image(batch=2, channels=3, height=64, width=96):
    return torch.rand(batch, channels, height, width)


def loss_of(outputs):
    return sum(output.square().mean() for output in outputs)


@every
def test_levels_are_those_of_a_forward_pass(name):
    net = build(name).eval()
    outputs = net(image(1, height=96, width=160))
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(net.levels)
    for output, level in zip(outputs, net.levels, strict=True):
        size = -(-96 // level.stride), -(-160 // level.stride)
        assert output.shape == (1, level.channels, *size)
    strides = [level.stride for level in net.levels]
    assert strides == sorted(strides)


@every
def test_strides_and_indices_choose_the_same_levels(name):
    available = build_on_meta(name).levels
    strides = sorted({level.stride for level in available})[-2:]
    net = build_on_meta(name, out_strides=strides)
    assert net.out_strides == tuple(strides)
    assert set(net.levels) <= set(available)
    assert build_on_meta(name, out_indices=net.out_indices).levels == net.levels
    assert net.out_channels == tuple(level.channels for level in net.levels)


@every
def test_a_level_that_is_not_there_lists_those_that_are(name):
    levels = build_on_meta(name).levels
    with pytest.raises(ValueError, match='no level of index 99') as error:
        build_on_meta(name, out_indices=(1, 99))
    assert f'({levels[0].channels} channels, stride' in str(error.value)
    assert 'out_indices=' in str(error.value)
    with pytest.raises(ValueError, match='no level of stride 3'):
        build_on_meta(name, out_strides=(3,))


@every
def test_an_unknown_argument_is_an_error(name):
    with pytest.raises(TypeError, match='nonsense'):
        build_on_meta(name, nonsense=True)


@every
def test_every_parameter_gets_a_gradient_without_the_deepest_level(name):
    strides = sorted(set(build_on_meta(name).out_strides))
    chosen = dict(out_strides=strides[:-1]) if strides[1:] else dict(out_indices=(2,))
    net = build(name, **chosen).train()
    loss_of(net(image())).backward()
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []


@every
def test_frozen_stages_stay_as_they_are(name):
    net = build(name, frozen_stages=1)
    parts = [part for stage in (0, 1) for part in net.stage_modules(stage)]
    held = {
        id(p)
        for part in parts
        for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    }
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    # In __init__ already: DistributedDataParallel looks once.
    assert {n for n, p in net.named_parameters() if id(p) in held} <= frozen
    assert 0 < len(frozen) < len(list(net.parameters()))
    assert net.train() is net
    before = {n: b.clone() for n, b in net.state_dict().items()}
    loss_of(net(image())).backward()
    for part in parts:
        modules = part.modules() if isinstance(part, nn.Module) else ()
        assert not any(module.training for module in modules)
    changed = {n for n, b in net.state_dict().items() if not torch.equal(b, before[n])}
    owners = {n.rpartition('.')[0] for n in frozen}
    assert not {n for n in changed if n.rpartition('.')[0] in owners}
    assert all(p.grad is None for n, p in net.named_parameters() if n in frozen)


@every
def test_frozen_stages_out_of_range(name):
    with pytest.raises(ValueError, match='frozen_stages must be an integer from -1'):
        build_on_meta(name, frozen_stages=400)


@every
def test_norm_eval_stops_the_statistics(name):
    for norm_eval in (True, False):
        net = build(name, norm_eval=norm_eval).train()
        norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
        assert all(norm.training is not norm_eval for norm in norms)
        before = [norm.running_mean.clone() for norm in norms]
        with torch.no_grad():
            net(image())
        same = [
            torch.equal(a, norm.running_mean)
            for a, norm in zip(before, norms, strict=True)
        ]
        assert all(same) if norm_eval else not any(same)


@every
def test_modes_return_self_and_copies_are_their_own(name):
    net = build(name, frozen_stages=0)
    assert net.train() is net
    assert net.eval() is net
    x = image(1)
    with torch.no_grad():
        expected = net(x)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            for mine, theirs in zip(expected, twin(x), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
            for parameter in twin.parameters():
                parameter.fill_(0.5)
            assert not torch.equal(twin(x)[-1], expected[-1])
        for mine, again in zip(expected, net(x), strict=True):
            assert torch.equal(mine, again)


@every
def test_a_state_dict_goes_round(name, tmp_path):
    net, other = build(name).eval(), build(name).eval()
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    other.load_state_dict(torch.load(tmp_path / 'net.pth', weights_only=True))
    x = image(1)
    with torch.no_grad():
        for a, b in zip(net(x), other(x), strict=True):
            assert torch.equal(a, b)


@every
def test_other_numbers_of_input_channels(name):
    net = build(name, in_channels=4).train()
    outputs = net(image(channels=4))
    assert len(outputs) == len(net.levels)
    loss_of(outputs).backward()


@every
def test_no_attribute_of_ours_hides_a_part(name):
    net = build(name)
    hidden = [n for n, _ in net.named_children() if hasattr(type(net), n)]
    assert hidden == []


@every
def test_bfloat16_autocast(name):
    net = build(name).train()
    # CPUs without instructions for it are ten times slower than in float32.
    with torch.autocast('cpu', torch.bfloat16):
        outputs = net(image(height=32, width=64))
    loss_of(outputs).backward()
    assert all(torch.isfinite(output.float()).all() for output in outputs)
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


@every
def test_with_cp_gives_the_same_gradients_and_statistics(name):
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        net = build(name, with_cp=with_cp, frozen_stages=0).train()
        torch.manual_seed(1)
        loss_of(net(image())).backward()
        grads = {n: p.grad for n, p in net.named_parameters() if p.requires_grad}
        results.append((grads, dict(net.named_buffers())))
    for plain, recomputed in zip(*results, strict=True):
        assert plain.keys() == recomputed.keys()
        for key, value in plain.items():
            torch.testing.assert_close(value, recomputed[key], msg=key)


@every
def test_with_cp_keeps_fewer_activations(name):
    sizes = []
    for with_cp in (False, True):
        net = build(name, with_cp=with_cp).train()
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = net(image())
        weights = {p.data_ptr() for p in net.parameters()}
        sizes.append(sum(n for pointer, n in kept.items() if pointer not in weights))
        del outputs
    assert sizes[1] < sizes[0]
