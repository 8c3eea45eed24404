"""Nets of transformers: published ones, their weights, preprocessing and messages."""

import json
import re
import shutil

import pytest
import timm
import torch
from huggingface_hub import constants
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from transformers import AutoBackbone, AutoModel, HieraConfig, HieraModel

from mmdet_backbones.adapters.structure import RefusedError
from mmdet_backbones.adapters.transformers.nets import (
    ARCHITECTURES,
    configuration,
    make_spec,
)
from mmdet_backbones.adapters.transformers.published import FAMILIES, PUBLISHED
from mmdet_backbones.catalog.entries import load_source
from mmdet_backbones.check.config import check_config
from mmdet_backbones.errors import PretrainedWeightsError, settings_of
from mmdet_backbones.levels import IMAGENET
from mmdet_backbones.shapes.build import on_meta
from mmdet_backbones.swap.swapping import SwapOptions, save
from mmdet_backbones.weights.loading.loader import load_pretrained

FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
DINO = 'dino/dino-4scale_r50_8xb2-12e_coco.py'
# The same net in timm, by the hub's name of a published one.
TIMM = (
    (r'dinov2-with-registers-(\w+)', r'vit_\1_patch14_reg4_dinov2'),
    (r'dinov2-(\w+)', r'vit_\1_patch14_dinov2'),
    (r'dinov3-vits.*', 'vit_small_patch16_dinov3_qkvb'),
    (r'dinov3-vitb.*', 'vit_base_patch16_dinov3_qkvb'),
    (r'dinov3-vitl.*', 'vit_large_patch16_dinov3_qkvb'),
    (r'dinov3-convnext-(\w+)-.*', r'convnext_\1'),
    (r'convnext-(\w+)-224', r'convnext_\1'),
    (r'convnextv2-(\w+)-1k-224', r'convnextv2_\1'),
    (r'swin-(\w+)-patch4-window7-224', r'swin_\1_patch4_window7_224'),
    (r'swinv2-(\w+)-patch4-(\w+)-256', r'swinv2_\1_\2_256'),
    (r'resnet-(\d+)', r'resnet\1'),
    (r'focalnet-tiny-lrf', 'focalnet_tiny_lrf'),
    (r'focalnet-(\w+)', r'focalnet_\1_srf'),
    (r'pvt_v2_b2_linear', 'pvt_v2_b2_li'),
    (r'(pvt_v2_b\d)', r'\1'),
    (r'hiera-base-plus-224-hf', 'hiera_base_plus_224'),
    (r'hiera-(\w+)-224-hf', r'hiera_\1_224'),
    (r'beit-(\w+)-patch16-224', r'beit_\1_patch16_224'),
    (r'bit-50', 'resnetv2_50x1_bit'),
)
# Tables of positions: with an entry of the class token here, and without one in timm's.
POSITIONS = re.compile(r'pos_embed|position_embeddings')
# Small nets of every kind of layout that the hub's files have.
SMALL = {
    'beit': dict(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, use_relative_position_bias=True, use_mask_token=True,
    ),
    'bit': dict(hidden_sizes=[128] * 4, embedding_size=32, depths=[1, 1, 1, 1]),
    'convnextv2': dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    'dinov2': dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2),
    'dinov3_convnext': dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    'dinov3_vit': dict(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, num_register_tokens=4,
    ),
    'focalnet': dict(embed_dim=16, hidden_sizes=[32, 64, 128, 128]),
    'pvt_v2': {},
    'resnet': dict(hidden_sizes=[16, 32, 32, 64], layer_type='basic', depths=[1] * 4),
    'swin': dict(embed_dim=12, num_heads=[1, 1, 2, 2]),
}  # fmt: skip
SMALL = {kind: net for kind, net in SMALL.items() if kind in ARCHITECTURES}
REFUSED = {
    'dinat': 'natten',
    'nat': 'natten',
    'timm_backbone': 'TIMMBackbone',
    'vitpose_backbone': r'\(2, 192, 768\) and no maps',
}
BY_TYPE = {name: net['model_type'] for name, net in PUBLISHED.items()}
HERE = [name for name, kind in BY_TYPE.items() if kind in ARCHITECTURES]
FIRST = {BY_TYPE[name]: name for name in reversed(HERE)}.values()


def backbone(model, **arguments):
    return MODELS.build(
        dict(type='mmdet_backbones.TransformersBackbone', model=model, **arguments)
    )


def small(kind, **arguments):
    return backbone({'model_type': kind, **SMALL[kind]}, **arguments)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Write a small model with a classifier's neighbours, as the hub's files are."""

    def write(kind):
        folder = tmp_path_factory.mktemp(kind)
        spec = make_spec('a net', {'model_type': kind, **SMALL[kind]}, 3, None)
        torch.manual_seed(0)
        model = AutoModel.from_config(configuration(spec, None))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
        return folder

    return write


def size_of_matrices(net):
    """Count the numbers of what multiplies, but for positions."""
    return sum(
        p.numel()
        for name, p in net.named_parameters()
        if max((1, *p.shape)) < p.numel() and not POSITIONS.search(name)
    )


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=[] if n in FIRST else pytest.mark.slow) for n in HERE],
)
def test_a_published_net_is_the_same_net_of_timm(name):
    pattern = next(p for p in TIMM if re.fullmatch(p[0], name.partition('/')[2]))
    model = re.sub(*pattern, name.partition('/')[2])
    same = on_meta(lambda: timm.create_model(model, num_classes=0))
    spec = make_spec('a net', name, 3, None)
    net = on_meta(
        lambda: AutoBackbone.from_config(configuration(spec, [spec.count - 1]))
    )
    assert size_of_matrices(net) == size_of_matrices(same)
    assert net.channels[-1] == same.num_features
    expects = FAMILIES[spec.kind]
    for key, values in (('mean', expects.mean), ('std', expects.std)):
        theirs = [255 * v for v in same.pretrained_cfg[key]]
        assert values == pytest.approx(theirs, abs=1e-3)
    if 'image_size' in PUBLISHED[name]:
        assert PUBLISHED[name]['image_size'] == same.pretrained_cfg['input_size'][-1]


@pytest.mark.parametrize('kind', SMALL)
def test_weights_of_the_hub_give_the_maps_of_their_own_library(kind, written):
    folder = written(kind)
    net = backbone(str(folder)).eval()
    report = load_pretrained(net, str(folder / 'model.safetensors'))
    own = [key for key in report.missing if not key.startswith('hidden_states_norms')]
    assert own == []
    theirs = type(net._net).from_pretrained(folder, out_indices=list(net.out_indices))
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.eval()(x).feature_maps
        for mine, other in zip(net(x), expected, strict=True):
            torch.testing.assert_close(mine, other)


def test_a_file_that_lacks_a_role_is_refused(written):
    from safetensors.torch import load_file, save_file

    path = written('dinov2') / 'model.safetensors'
    tensors = load_file(path)
    short = {k: v for k, v in tensors.items() if 'layer_scale1' not in k}
    assert len(short) < len(tensors)
    save_file(short, path)
    net = small('dinov2')
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(PretrainedWeightsError, match=r'layer_scale1\.lambda1'):
        load_pretrained(net, str(path))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize('kind', ['dinov2', 'swin', 'resnet'])
def test_a_file_of_another_depth_is_refused(kind, written):
    deeper = (
        dict(num_hidden_layers=3) if kind == 'dinov2' else dict(depths=[2, 2, 7, 2])
    )
    net = backbone({'model_type': kind, **SMALL[kind], **deeper})
    with pytest.raises(PretrainedWeightsError):
        load_pretrained(net, str(written(kind) / 'model.safetensors'))


@pytest.mark.parametrize('size', [(224, 224), (96, 160), (100, 130)])
def test_hiera_gives_the_maps_of_its_model(size):
    """The backbone class of transformers gives its blocks tokens out of order."""
    settings = dict(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    padded = [side + -side % 32 for side in size]
    net = backbone(dict(model_type='hiera', **settings)).eval()
    model = HieraModel(
        HieraConfig(**settings, image_size=padded), add_pooling_layer=False
    )
    state = net.state_dict()
    table = 'embeddings.position_embeddings'
    square = state[table].unflatten(1, (56, 56)).permute(0, 3, 1, 2)
    grid = [side // 4 for side in padded]
    resized = torch.nn.functional.interpolate(square, grid, mode='bicubic')
    state[table] = square.flatten(2).mT if grid == [56, 56] else resized.flatten(2).mT
    assert model.load_state_dict(state, strict=False).missing_keys == []
    x = torch.rand(1, 3, *size)
    image = torch.nn.functional.pad(x, (0, padded[1] - size[1], 0, padded[0] - size[0]))
    with torch.no_grad():
        maps = model.eval()(image, output_hidden_states=True).reshaped_hidden_states
        norms = net.get_submodule('hidden_states_norms').children()
        for level, mine, theirs, norm in zip(
            net.levels, net(x), maps, norms, strict=True
        ):
            height, width = (-(-side // level.stride) for side in size)
            expected = norm(theirs).permute(0, 3, 1, 2)[..., :height, :width]
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_the_image_itself_is_no_level():
    if 'dinov3_convnext' not in ARCHITECTURES:
        pytest.skip('this transformers has no DINOv3')
    net = on_meta(lambda: small('dinov3_convnext'))
    assert net.out_indices == (1, 2, 3, 4)
    assert net.out_strides == (4, 8, 16, 32)


def test_preprocessing_is_read_beside_the_weights(tmp_path):
    (tmp_path / 'config.json').write_text(
        json.dumps(dict(model_type='resnet', **SMALL['resnet'], num_labels=7))
    )
    assert on_meta(lambda: backbone(str(tmp_path))).preprocess == IMAGENET
    processor = dict(image_mean=[0.5, 0.25, 0.0], image_std=[0.5, 0.5, 1.0])
    path = tmp_path / 'preprocessor_config.json'
    path.write_text(json.dumps(dict(processor, rescale_factor=1 / 255)))
    found = on_meta(lambda: backbone(str(tmp_path))).preprocess
    assert found == ((127.5, 63.75, 0.0), (127.5, 127.5, 255.0), 'rgb')
    path.write_text(json.dumps(dict(processor, do_rescale=False)))
    found = on_meta(lambda: backbone(str(tmp_path))).preprocess
    assert found.mean == (0.5, 0.25, 0.0)
    path.write_text(json.dumps(dict(processor, image_std='wide')))
    with pytest.raises(ValueError, match='image_mean and image_std must be'):
        on_meta(lambda: backbone(str(tmp_path)))


def test_a_net_of_the_hubs_cache_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    folder = tmp_path / 'models--somebody--some-net'
    snapshot = folder / 'snapshots' / 'abc'
    snapshot.mkdir(parents=True)
    (folder / 'refs').mkdir()
    (folder / 'refs' / 'main').write_text('abc')
    config = dict(model_type='resnet', **SMALL['resnet'])
    (snapshot / 'config.json').write_text(json.dumps(config))
    (tmp_path / 'models--somebody--a-text-model').mkdir()
    net = on_meta(lambda: backbone('somebody/some-net'))
    assert net.levels == on_meta(lambda: small('resnet')).levels
    load_source.cache_clear()
    try:
        aliases = load_source('transformers').aliases
    finally:
        load_source.cache_clear()
    assert list(aliases) == ['transformers/somebody/some-net']
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match='not in the hub'):
        on_meta(lambda: backbone('somebody/some-net'))


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        ('microsoft/resnet-51', r'did you mean microsoft/resnet-50.*model_type='),
        (dict(model_type='resnot'), "has no 'resnot': did you mean resnet"),
        (dict(model_type='timm_backbone'), 'TIMMBackbone'),
        (dict(model_type='dinov2', patch_size=-1), 'patch_size'),
        (dict(model_type='dinov2', reshape_hidden_states=False), r'no maps \(N, C'),
    ],
)
def test_a_net_that_is_not_there_is_named_with_what_to_write(model, message):
    with pytest.raises(ValueError, match=message):
        on_meta(lambda: backbone(model))


def test_an_entry_that_the_config_does_not_know():
    with pytest.raises(TypeError, match='has no dephts: did you mean depths'):
        on_meta(lambda: backbone(dict(model_type='resnet', dephts=[1, 1, 1, 1])))
    with pytest.raises(TypeError, match='model must be a name, a path or a dict'):
        on_meta(lambda: backbone(50))


def test_what_belongs_to_the_backbone_cannot_stand_in_the_config():
    inside = dict(model_type='resnet', **SMALL['resnet'], out_indices=[1])
    with pytest.raises(ValueError, match='Write out_indices=') as error:
        on_meta(lambda: backbone(inside))
    # What the message says, written, is taken.
    on_meta(lambda: backbone(**settings_of(error.value), out_indices=(1,)))


def test_the_rate_of_stochastic_depth_is_honoured_or_refused():
    net = on_meta(lambda: small('convnextv2', drop_path_rate=0.4))
    rates = [getattr(m, 'drop_prob', None) for m in net.modules()]
    assert max(rate for rate in rates if rate) == pytest.approx(0.4)
    with pytest.raises(ValueError, match='no stochastic depth: leave drop_path_rate'):
        on_meta(lambda: small('resnet', drop_path_rate=0.4))
    with pytest.raises(ValueError, match='from 0 to below 1'):
        on_meta(lambda: small('convnextv2', drop_path_rate=1.5))


VITS = [kind for kind in ('dinov2', 'dinov3_vit') if kind in SMALL]


@pytest.mark.parametrize('kind', VITS)
def test_windows_keep_weights_and_see_less(kind):
    plain = small(kind).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    patch = plain.levels[0].stride
    x = torch.rand(1, 3, 3 * patch, 5 * patch)
    with torch.no_grad():
        expected = plain(x)
        for window, equal in ((5, True), (2, False)):
            net = small(kind, window_size=window, global_blocks=1).eval()
            net.load_state_dict(plain.state_dict())
            assert torch.allclose(net(x)[-1], expected[-1], atol=1e-5) == equal


def test_only_plain_vits_take_windows():
    with pytest.raises(ValueError, match='dinov3_vit are: leave out') as raised:
        small('resnet', window_size=2)
    cure = {k: v for k, v in settings_of(raised.value).items() if v is not None}
    assert small('resnet', **cure).levels


def test_adapters_of_low_rank_train_alone():
    torch.manual_seed(0)
    net = small('dinov2', lora=dict(r=2)).eval()
    x = torch.rand(1, 3, 42, 28)
    plain = small('dinov2').eval()
    plain.load_state_dict(
        {key: value for key, value in net.state_dict().items() if 'lora' not in key}
    )
    learning = [name for name, p in net.named_parameters() if p.requires_grad]
    assert learning
    assert all('lora' in name for name in learning)
    assert torch.equal(net(x)[-1], plain(x)[-1])
    net(x)[-1].sum().backward()
    assert any(p.grad is not None for p in net.parameters())


@pytest.mark.slow
def test_a_new_process_reads_nets_that_it_never_built(run_python, tmp_path):
    image = torch.rand(1, 3, 64, 64)
    nets = {kind: small(kind).eval() for kind in SMALL}
    with torch.no_grad():
        maps = {kind: net(image) for kind, net in nets.items()}
    torch.save((image, nets, maps), tmp_path / 'nets.pth')
    code = (
        'import sys, torch\n'
        'image, nets, maps = torch.load(sys.argv[1], weights_only=False)\n'
        'with torch.no_grad():\n'
        '    for kind, net in nets.items():\n'
        '        torch.testing.assert_close(net(image), maps[kind], rtol=0, atol=0)\n'
        'print(*nets)'
    )
    done = run_python('-c', code, str(tmp_path / 'nets.pth'))
    assert done.stdout.split() == list(SMALL), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize('kind', ARCHITECTURES)
def test_every_architecture_is_a_backbone_or_says_why_not(kind):
    if kind in REFUSED:
        with pytest.raises(
            RefusedError, match=f'cannot be a backbone: .*{REFUSED[kind]}'
        ):
            on_meta(lambda: backbone(kind))
        return
    net = on_meta(lambda: backbone(kind))
    assert net.levels
    strides = sorted(set(net.out_strides))[:-1]
    chosen = dict(out_strides=strides) if strides else dict(out_indices=(2,))
    part = on_meta(lambda: backbone(kind, **chosen)).train()
    size = net._sizes.padded((96, 160))
    with torch.device('meta'):
        sum(out.sum() for out in part(torch.rand(2, 3, *size))).backward()
    trained = {n: p for n, p in part.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ('base', 'name'),
    [
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'facebook/dinov2-small'),
        (
            'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
            'facebook/convnextv2-atto-1k-224',
        ),
        ('dino/dino-4scale_r50_8xb2-12e_coco.py', 'microsoft/resnet-18'),
    ],
)
def test_a_detector_trains_and_finds_with_a_net_of_transformers(base, name, tmp_path):
    out = tmp_path / 'swapped.py'
    save(SwapOptions(f'mmdet::{base}', f'transformers/{name}', out))
    config = Config.fromfile(out)
    assert check_config(config) == []
    assert config.model.backbone.init_cfg.checkpoint == f'hf://{name}'
    config.model.backbone.init_cfg = None
    detector = MODELS.build(config.model)
    # DINO leaves some parameters as the memory was until then.
    detector.init_weights()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4)
    wrapper = OptimWrapper(optimizer)
    # DINO chooses 900 of the cells of its levels.
    image = [3, 256, 288] if base == DINO else [3, 96, 128]
    data = demo_mm_inputs(2, [image, image])
    before = {n: p.clone() for n, p in detector.backbone.named_parameters()}
    for _ in range(2):
        losses = detector.train_step(data, wrapper)
        assert all(torch.isfinite(loss).all() for loss in losses.values())
    changed = [
        not torch.equal(p, before[n])
        for n, p in detector.backbone.named_parameters()
        if p.requires_grad
    ]
    assert sum(changed) > len(changed) // 2
    found = detector.eval().test_step(demo_mm_inputs(1, [image]))
    assert found[0].pred_instances.bboxes.shape[1] == 4
