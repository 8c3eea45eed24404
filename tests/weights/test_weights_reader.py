"""From a file to tensors: formats and wrappers, told from the content."""

import argparse
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from weight_files import assert_same, make_weights

from mmdet_backbones.weights import CheckpointError, read_checkpoint, read_shapes

# Formats


def save_old(weights, path):
    torch.save(weights, path, _use_new_zipfile_serialization=False)


FORMATS = {'zip': torch.save, 'old': save_old, 'safetensors': save_file}


@pytest.mark.parametrize(
    'suffix', ['.pth', '.pt', '.bin', '.ckpt', '.pkl', '.safetensors', '.npz', '']
)
@pytest.mark.parametrize('kind', FORMATS)
def test_the_content_tells_the_format(tmp_path, kind, suffix):
    path = tmp_path / f'net{suffix}'
    weights = make_weights()
    FORMATS[kind](weights, path)
    if kind == 'safetensors':
        weights = dict(sorted(weights.items()))  # its own order
    if suffix == '.safetensors' and kind.startswith('old'):
        with pytest.raises(CheckpointError, match='no safetensors file'):
            read_checkpoint(str(path))
        return
    found = read_checkpoint(str(path))
    assert {k: v.tolist() for k, v in found.state_dict.items()} == {
        k: v.tolist() for k, v in weights.items()
    }
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.source, found.path, found.wrapper) == (str(path), path, None)
    shapes = {k: tuple(v.shape) for k, v in weights.items()}
    assert read_shapes(str(path)) == shapes


def test_dtypes_stay(tmp_path):
    path = tmp_path / 'net.pth'
    dtypes = (torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64)
    weights = {str(dtype): torch.ones(4).to(dtype) for dtype in dtypes}
    torch.save(weights, path)
    assert_same(read_checkpoint(str(path)).state_dict, weights)


def test_the_sha256_follows_the_file(tmp_path):
    path = tmp_path / 'net.pth'
    found = []
    for seed in range(2):
        torch.save(make_weights(seed), path)
        found.append(read_checkpoint(str(path)).sha256)
        assert found[-1] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert read_checkpoint(str(path)).sha256 == found[-1]
    assert found[0] != found[1]


def test_shapes_are_read_without_the_data(tmp_path):
    """A file with a hole of 40 GB: reading it would not end."""
    path = tmp_path / 'net.safetensors'
    size = 10**10
    entry = {'dtype': 'F32', 'shape': [size], 'data_offsets': [0, 4 * size]}
    header = json.dumps({'module.large': entry}).encode()
    header += b' ' * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, 'little') + header)
    os.truncate(path, 8 + len(header) + 4 * size)
    assert read_shapes(str(path)) == {'large': (size,)}


def test_metadata(tmp_path):
    path = tmp_path / 'net.safetensors'
    save_file(make_weights(), path, metadata={'licence': 'MIT'})
    assert read_checkpoint(str(path)).metadata == {'licence': 'MIT'}
    path = tmp_path / 'net.pth'
    meta = {'classes': ('tree',), 'epoch': 3}
    torch.save({'state_dict': make_weights(), 'meta': meta}, path)
    assert read_checkpoint(str(path)).metadata == meta


def test_training_checkpoints(tmp_path):
    """What mmengine and other training scripts store beside the weights."""
    path = tmp_path / 'epoch_1.pth'
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    content = {
        'state_dict': make_weights(),
        'message_hub': {'log_scalars': {'train/loss': history}},
        'optimizer': {'state': {0: {'exp_avg': torch.zeros(4)}}, 'param_groups': []},
        'args': argparse.Namespace(lr=0.1),
        'best': np.float64(0.5),
    }
    torch.save(content, path)
    found = read_checkpoint(str(path))
    assert_same(found.state_dict, content['state_dict'])
    assert found.wrapper == 'state_dict'


# Wrappers


def averaged(w):
    return {'n_averaged': torch.tensor(3), **{f'module.{k}': v for k, v in w.items()}}


@pytest.mark.parametrize(
    ('wrap', 'wrapper'),
    [
        *((lambda w, k=k: {k: w, 'epoch': 3}, k) for k in (
            'state_dict', 'model', 'model_state', 'model_state_dict', 'net', 'network',
            'params', 'module', 'weights', 'teacher', 'ema', 'anything',
        )),
        (lambda w: {'model': {'state_dict': w}}, 'model.state_dict'),
        (lambda w: {'ema': {'module': w, 'updates': 9}}, 'ema.module'),
        (lambda w: {'model': w, 'model_ema': {}}, 'model'),
        (lambda w: {'model': w, 'ema': None}, 'model'),
        (lambda w: {'state_dict': w, 'optimizer': make_weights(1)}, 'state_dict'),
        (lambda w: {f'module.module.{k}': v for k, v in w.items()}, None),
        (lambda w: {f'_orig_mod.{k}': v for k, v in w.items()}, None),
        (lambda w: {f'module._orig_mod.{k}': v for k, v in w.items()}, None),
        (lambda w: {f'_orig_mod.module.{k}': v for k, v in w.items()}, None),
        (averaged, None),
        (lambda w: {'epoch': 3, **w, 'names': ['a'], 'lr': 0.1}, None),
        (lambda w: {k: nn.Parameter(v, v.is_floating_point()) for k, v in w.items()},
         None),
        (lambda w: {k: v.numpy() for k, v in w.items()}, None),
    ],
)  # fmt: skip
def test_wrappers(tmp_path, wrap, wrapper):
    path = tmp_path / 'net.pth'
    weights = make_weights()
    torch.save(wrap(weights), path)
    found = read_checkpoint(str(path))
    assert_same(found.state_dict, weights)
    assert found.wrapper == wrapper
    assert not any(value.requires_grad for value in found.state_dict.values())
    assert read_shapes(str(path)) == {k: tuple(v.shape) for k, v in weights.items()}


@pytest.mark.parametrize('key', ['state_dict_ema', 'model_ema', 'ema', 'params_ema'])
@pytest.mark.parametrize('plain', ['state_dict', 'model', 'params'])
def test_averaged_weights_come_first(tmp_path, key, plain):
    path = tmp_path / 'net.pth'
    torch.save({plain: make_weights(0), key: make_weights(1)}, path)
    assert_same(read_checkpoint(str(path)).state_dict, make_weights(1))


def test_mmengine_stores_the_averaged_weights_as_state_dict(tmp_path):
    """Its hook swaps the two, so `ema_state_dict` are the weights before averaging."""
    path = tmp_path / 'net.pth'
    net = nn.Conv2d(3, 4, 1)
    hook = EMAHook()
    hook.ema_model = ExponentialMovingAverage(net, momentum=0.5)
    hook.ema_model.update_parameters(net)
    with torch.no_grad():
        net.weight.add_(1)
    hook.ema_model.update_parameters(net)
    average = hook.ema_model.module.weight.clone()
    assert not torch.equal(average, net.weight)
    checkpoint = {'state_dict': {k: v.clone() for k, v in net.state_dict().items()}}
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, path)
    found = read_checkpoint(str(path)).state_dict
    assert torch.equal(found['weight'], average)
    del checkpoint['state_dict']
    torch.save(checkpoint, path)
    found = read_checkpoint(str(path)).state_dict
    assert torch.equal(found['weight'], net.weight)
    assert set(found) == {'weight', 'bias'}


def test_averaged_model_of_torch(tmp_path):
    path = tmp_path / 'net.pth'
    net = nn.Conv2d(3, 4, 1)
    torch.save(AveragedModel(nn.DataParallel(net)).state_dict(), path)
    assert_same(read_checkpoint(str(path)).state_dict, dict(net.state_dict()))


def test_module_stays_where_not_every_name_has_it(tmp_path):
    path = tmp_path / 'net.pth'
    weights = {'module.conv.weight': torch.ones(2), 'head.weight': torch.ones(3)}
    torch.save(weights, path)
    assert_same(read_checkpoint(str(path)).state_dict, weights)


def test_several_dicts_of_tensors_are_not_guessed(tmp_path):
    path = tmp_path / 'net.pth'
    torch.save({'generator': make_weights(), 'discriminator': make_weights()}, path)
    with pytest.raises(CheckpointError, match='a dict of generator, discriminator'):
        read_checkpoint(str(path))


def test_mapping_does_not_change_the_file(tmp_path):
    path = tmp_path / 'net.pth'
    torch.save(make_weights(), path)
    before = path.read_bytes()
    found = read_checkpoint(str(path)).state_dict
    for value in found.values():
        value.zero_()
    assert path.read_bytes() == before
