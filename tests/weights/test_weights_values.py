"""Values that mean something else in a net than in their file, and tables that do."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from mmdet_backbones import TIMMBackbone
from mmdet_backbones.weights import CheckpointError, load_pretrained

NORM = 'blocks.1.norm1.weight'


@pytest.fixture
def load(tmp_path):
    def load(net, content):
        path = str(tmp_path / 'net.pth')
        torch.save(content, path)
        return load_pretrained(net, path)

    return load


@pytest.fixture
def refused(load):
    def refuse(net, state_dict):
        before = {k: v.clone() for k, v in net.state_dict().items()}
        with pytest.raises(CheckpointError) as error:
            load(net, state_dict)
        for key, value in net.state_dict().items():
            assert torch.equal(value, before[key]), key
        return str(error.value)

    return refuse


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda x: x.int(), 'no floating point numbers'),
        (lambda x: x > 0, 'no floating point numbers'),
        (lambda x: x.to(torch.complex64), 'no floating point numbers'),
        (lambda x: x * float('nan'), 'NaN or infinity'),
        (lambda x: x.double() * 1e300, 'too large'),
    ],
    ids=['int', 'bool', 'complex', 'NaN', 'overflow'],
)
def test_values_that_no_net_takes_are_refused_by_name(refused, change, word):
    state = timm.create_model('test_vit').state_dict()
    message = refused(TIMMBackbone('test_vit'), state | {NORM: change(state[NORM])})
    assert word in message
    assert NORM in message


def test_values_too_large_for_half_precision(refused, load):
    state = timm.create_model('test_vit').state_dict()
    large = state | {NORM: state[NORM] * 1e6}
    assert NORM in refused(TIMMBackbone('test_vit').half(), large)
    load(TIMMBackbone('test_vit'), large)


def test_negative_variances(refused):
    state = timm.create_model('resnet18').state_dict()
    state['layer1.0.bn1.running_var'][3] = -1e-3
    message = refused(TIMMBackbone('resnet18'), state)
    assert 'layer1.0.bn1.running_var' in message
    assert 'negative' in message


def test_a_damaged_entry_of_a_file_is_refused(tmp_path):
    path = tmp_path / 'net.pth'
    torch.save(timm.create_model('test_vit').state_dict(), path)
    content = bytearray(path.read_bytes())
    load_pretrained(TIMMBackbone('test_vit'), str(path))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"is damaged \(Bad CRC-32 for file 'net/"
    ):
        load_pretrained(TIMMBackbone('test_vit'), str(path))


def test_a_file_without_check_sums_is_read(tmp_path):
    path = tmp_path / 'net.pth'
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(timm.create_model('test_vit').state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_pretrained(TIMMBackbone('test_vit'), str(path)).coverage == 1


def test_as_many_positions_of_another_grid_are_interpolated(load):
    state = timm.create_model('vit_tiny_patch16_224').state_dict()
    wide = TIMMBackbone('vit_tiny_patch16_224', img_size=(112, 448), out_strides=(16,))
    ((key, *_, how),) = load(wide, state).adapted
    assert '14 x 14 to 7 x 28' in how
    expected = resample_abs_pos_embed(state['pos_embed'], [7, 28], [14, 14], 1)
    assert torch.equal(wide.state_dict()[key], expected)
    square = TIMMBackbone('vit_tiny_patch16_224', out_strides=(16,))
    assert load(square, state).adapted == ()
    assert torch.equal(square.state_dict()[key], state['pos_embed'])


@pytest.mark.parametrize('size', ['(112, 448)', '[112, 448]'])
def test_a_file_that_tells_its_images_is_believed(load, size):
    wide = TIMMBackbone('vit_tiny_patch16_224', img_size=(112, 448), out_strides=(16,))
    backbone = f"dict(type='mmdet_backbones.TIMMBackbone', img_size={size})"
    meta = dict(cfg=f"model = dict(type='X', backbone={backbone})")
    state = {f'backbone.{k}': v for k, v in wide.state_dict().items()}
    assert load(wide, dict(meta=meta, state_dict=state)).adapted == ()
    square = TIMMBackbone('vit_tiny_patch16_224', out_strides=(16,))
    ((*_, how),) = load(square, dict(meta=meta, state_dict=state)).adapted
    assert '7 x 28 to 14 x 14' in how


def test_relative_positions_of_another_grid_are_interpolated(load):
    # 27 x 27 relations of 14 x 14 patches, or 9 x 81 of 5 x 41.
    name = 'beit_base_patch16_224'
    state = timm.create_model(name, depth=1).state_dict()
    wide = TIMMBackbone('beit_base_patch16_224', img_size=(80, 656), out_indices=(0,))
    report = load(wide, state)
    assert any('14 x 14 to 5 x 41' in entry.how for entry in report.adapted)


@pytest.mark.parametrize('pretrained', ['weights/net.pth', 1])
def test_pretrained_of_timm_is_no_path(pretrained):
    with pytest.raises(TypeError, match='checkpoint_path='):
        TIMMBackbone('test_vit', pretrained=pretrained)


def test_an_init_cfg_of_text_is_told_as_the_dict_to_write():
    net = TIMMBackbone('test_vit', init_cfg='torchvision://resnet18')
    line = r"dict\(type='Pretrained', checkpoint='torchvision://resnet18'\)"
    with pytest.raises(TypeError, match=line):
        net.init_weights()
