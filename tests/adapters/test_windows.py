"""Plain ViTs in windows: against attention over all tokens under a mask."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmdet_backbones.adapters.timm import nets
from mmdet_backbones.adapters.timm.backbone import TIMMBackbone
from mmdet_backbones.adapters.timm.windows import WINDOWED, plain_vit_parts
from mmdet_backbones.adapters.windows import (
    attend_in_windows,
    use_windows,
    windowed_blocks,
)
from mmdet_backbones.errors import ArgumentError, settings_of

# A table of positions, with one class token and with two; rotation in two layouts, the
# same for all heads and one for each; layer scales and register tokens.
TIMM = [
    'vit_tiny_patch16_224',
    'deit_tiny_distilled_patch16_224',
    'vit_small_patch14_reg4_dinov2',
    'vit_tiny_patch16_dinov3_qkvb',
    'eva02_tiny_patch14_224',
    'vit_small_patch16_rope_mixed_224',
]
TRANSFORMERS = ['ViT', 'Dinov2', 'DINOv3ViT']
# Divided by the window along no side, one and both.
SIZES = [((5, 7), (2, 3)), ((3, 8), (5, 4)), ((6, 4), (3, 2))]


def drawn(net):
    """Every parameter tells, fresh layer scales included."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return net.eval()


def shallow(name, *windows):
    """Three blocks of a net of timm, and its patch size."""
    options = dict(depth=3, embed_dim=48, num_heads=3)
    options |= dict(dynamic_img_size=True, dynamic_img_pad=True)
    net = nets.build(name, tuple(options.items()), (0, 1, 2))
    if windows:
        use_windows(plain_vit_parts(net), *windows, name, WINDOWED)
    return drawn(net), net.feature_info.reduction()[-1]


def image(rows, columns, patch=16):
    generator = torch.Generator().manual_seed(rows)
    return torch.rand(2, 3, rows * patch, columns * patch, generator=generator)


def calls_of(layers, run):
    """What goes into layers and comes out of them while a net runs."""
    seen = []
    for layer in layers:
        layer.register_forward_hook(
            lambda layer, args, kwargs, output: seen.append((args, kwargs, output)),
            with_kwargs=True,
        )
    with torch.no_grad():
        run()
    return seen


def masked(layer, mask_name, args, kwargs, grid, window):
    """The same layer over all tokens, with all but one window masked at a time."""
    tokens, *_ = args
    kwargs = {k: v for k, v in kwargs.items() if k != mask_name}
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing='ij')
    of_window = (rows // window[0] * 100 + columns // window[1]).flatten()
    before = tokens.shape[1] - len(of_window)
    expected = torch.zeros_like(tokens)
    for number in of_window.unique():
        inside = of_window == number
        seen = torch.cat([torch.ones(before, dtype=torch.bool), inside])
        kwargs[mask_name] = seen.expand(1, 1, len(seen), -1)
        output = type(layer).forward(layer, tokens, **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        expected[:, before:][:, inside] = output[:, before:][:, inside]
        expected[:, :before] += output[:, :before] * inside.sum() / len(inside)
    return expected


def assert_masked(layers, run, mask_name, grid, window):
    calls = calls_of(layers, run)
    assert len(calls) == len(layers)
    for layer, (args, kwargs, output) in zip(layers, calls, strict=True):
        output = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            expected = masked(layer, mask_name, args[:1], kwargs, grid, window)
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('grid', 'window'), SIZES)
@pytest.mark.parametrize('name', TIMM)
def test_a_window_is_the_attention_of_all_tokens_under_a_mask(name, grid, window):
    net, patch = shallow(name, window, [1])
    first, whole, last = (block.attn for block in net.model.blocks)
    assert 'forward' not in vars(whole)
    x = image(*grid, patch)
    assert_masked([first, last], lambda: net(x), 'attn_mask', grid, window)


@pytest.mark.parametrize('name', TIMM)
def test_a_window_that_holds_the_image_changes_nothing(name):
    (net, patch), (plain, _) = shallow(name, (3, 4), 0), shallow(name)
    assert net.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(net(x := image(3, 4, patch)), plain(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        # It does where it does not.
        x = image(3, 5, patch)
        assert not torch.allclose(net(x)[-1], plain(x)[-1], rtol=1e-2, atol=1e-2)


def family(name):
    """A small net of transformers, its patches and its layers of attention."""
    import transformers

    config = getattr(transformers, f'{name}Config')(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=2,
        intermediate_size=64, image_size=64, patch_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    net = getattr(transformers, f'{name}Model')(config).eval()
    patches = net.embeddings.patch_embeddings
    layers = [m for m in net.modules() if type(m).__name__ == f'{name}Attention']
    return net, getattr(patches, 'projection', patches), layers


@pytest.mark.parametrize('name', TRANSFORMERS)
def test_the_layers_of_transformers_look_through_the_same_windows(name):
    net, patches, layers = family(name)
    plain = copy.deepcopy(net)
    assert len(layers) == 2
    attend_in_windows(patches, layers, (2, 3), 0, name)
    given = dict(interpolate_pos_encoding=True) if name == 'ViT' else {}
    for grid in ((5, 7), (4, 6)):
        x = image(*grid)
        run = lambda x=x: net(x, **given)  # noqa: E731
        assert_masked(layers, run, 'attention_mask', grid, (2, 3))
        for layer in layers:
            layer._forward_hooks.clear()
            layer._forward_hooks_with_kwargs.clear()
    x = image(2, 3)
    with torch.no_grad():
        ours, theirs = net(x, **given), plain(x, **given)
    torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state)


def test_a_block_that_runs_again_looks_through_the_windows_of_its_own_image():
    """Another image was seen meanwhile, of as many patches in other rows."""
    first, second = image(4, 6), image(6, 4)
    gradients = []
    for with_cp in (False, True):
        net = drawn(TIMMBackbone('test_vit', window_size=3, with_cp=with_cp)).train()
        total = sum(output.square().mean() for output in net(first))
        net(second)
        total.backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def compiled(net):
    return torch.compile(net, backend='eager', fullgraph=True)


@pytest.mark.parametrize(
    'convert',
    [
        copy.deepcopy,
        lambda net: pickle.loads(pickle.dumps(net)),
        pytest.param(compiled, marks=pytest.mark.slow),
    ],
    ids=['copy', 'pickle', 'compile'],
)
def test_a_converted_net_keeps_its_windows(convert):
    net = drawn(TIMMBackbone('test_vit', window_size=3, out_indices=(2,)))
    converted = convert(net)
    with torch.no_grad():
        net(image(2, 2))  # of which a copy knows nothing
        for grid in ((5, 7), (4, 6)):
            torch.testing.assert_close(converted(image(*grid)), net(image(*grid)))


def test_blocks_that_see_everything_are_spread_as_in_vitdet():
    for depth, whole in ((12, [2, 5, 8, 11]), (24, [5, 11, 17, 23])):
        windowed = windowed_blocks(depth, 4, '')
        assert windowed == windowed_blocks(depth, whole, '')
        assert sorted(windowed + whole) == list(range(depth))
    for depth in range(1, 41):
        assert windowed_blocks(depth, None, '')
        for count in range(depth):
            windowed = windowed_blocks(depth, count, '')
            assert len(windowed) == depth - count
            # The last block sees everything wherever one does.
            assert count == 0 or depth - 1 not in windowed


@pytest.mark.parametrize(
    ('name', 'arguments', 'told'),
    [
        ('test_vit', dict(global_blocks=2), 'no effect without window_size'),
        ('test_vit', dict(window_size=0), 'got 0: write window_size=14'),
        ('test_vit', dict(window_size=(14, 14, 14)), 'rows and columns'),
        ('test_vit', dict(window_size=14, global_blocks=6), 'its 6 blocks'),
        ('test_vit', dict(window_size=14, global_blocks=[0, 6]), '0 to 5'),
        ('test_vit', dict(window_size=14, global_blocks=[1, 1]), 'each once'),
        ('test_vit', dict(window_size=14, global_blocks='2'), "got '2'"),
        ('resnet18', dict(window_size=14), 'is no plain ViT'),
        ('beit_base_patch16_224', dict(window_size=14), 'is no plain ViT'),
    ],
)
def test_mistakes_are_told_with_what_to_write(name, arguments, told):
    with torch.device('meta'):
        with pytest.raises(ArgumentError) as error:
            TIMMBackbone(name, **arguments)
        assert told in str(error.value)
        TIMMBackbone(name, **{**arguments, **settings_of(error.value)})
