"""Every backbone trains under DistributedDataParallel, frozen, without a search.

The search for unused parameters, ``find_unused_parameters``, hides nets that own
parameters without gradient and costs time in every step. That every parameter which
trains has a gradient is tested of every published net in test_contract_variants.py.
"""

import json
import socket
import sys

import pytest
from conftest import ROOT
from variants import REPRESENTATIVES, config

NO_GRADIENT = 'Expected to have finished reduction'
MARKED_TWICE = 'Expected to mark a variable ready only once'
SIZE = (64, 96)


@pytest.fixture(scope='module')
def train_on_two(tmp_path_factory):
    """Take two steps with each net on two processes; what went wrong, by name."""
    import subprocess

    def run(cases):
        folder = tmp_path_factory.mktemp('ddp')
        (folder / 'cases.json').write_text(json.dumps(cases))
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        done = subprocess.run(
            [
                *(sys.executable, '-m', 'torch.distributed.run'),
                *('--nproc-per-node', '2', '--master-port', str(port)),
                *(
                    str(ROOT / 'tests' / 'helpers' / 'ddp_steps.py'),
                    str(folder / 'cases.json'),
                ),
                str(folder / 'results.json'),
            ],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads((folder / 'results.json').read_text())

    return run


def case(cfg, find_unused=False):
    return dict(cfg=cfg, find_unused=find_unused, size=SIZE)


def upto(name, **arguments):
    """A net without its deepest stage, the first stage frozen."""
    cfg = config(name, frozen_stages=1, **arguments)
    if 'vit' in name:
        return dict(cfg, out_indices=(2, 3))
    return dict(cfg, out_strides=(8, 16))


@pytest.mark.slow
def test_every_backbone_trains_frozen_and_without_its_tail(train_on_two):
    cases = {name: case(upto(name)) for name in REPRESENTATIVES}
    assert train_on_two(cases) == dict.fromkeys(cases, '')


@pytest.mark.slow
def test_heads_train_behind_a_wholly_frozen_backbone(train_on_two):
    names = ('resnet18', 'timm-convnext', 'torchvision-swin', 'mobilenet-v3')
    cases = {n: case(config(n, frozen_stages='all', with_cp=True)) for n in names}
    assert train_on_two(cases) == dict.fromkeys(cases, '')


@pytest.mark.slow
def test_nets_of_mmpretrain_fail_and_ours_train(train_on_two):
    pytest.importorskip('mmpretrain.models')
    nets = {
        'tail of ShuffleNetV2': dict(type='ShuffleNetV2', out_indices=(0, 1, 2)),
        'tail of MobileNetV3': dict(
            type='MobileNetV3', arch='small', out_indices=(3, 8, 11)
        ),
        'late freezing of MobileNetV3': dict(
            type='MobileNetV3', arch='small', out_indices=(11,), frozen_stages=2
        ),
        'late freezing of Swin': dict(
            type='SwinTransformer', arch='tiny', frozen_stages=1, pad_small_map=True
        ),
    }
    hosts = {n: dict(cfg, type=f'mmpretrain.{cfg["type"]}') for n, cfg in nets.items()}
    ours = {
        n: {k: v for k, v in cfg.items() if k != 'pad_small_map'}
        for n, cfg in nets.items()
    }
    ours = {n: dict(c, type=f'mmdet_backbones.{c["type"]}') for n, c in ours.items()}
    failed = train_on_two({n: case(cfg) for n, cfg in hosts.items()})
    assert all(NO_GRADIENT in message for message in failed.values()), failed
    assert train_on_two({n: case(c) for n, c in ours.items()}) == dict.fromkeys(
        nets, ''
    )


@pytest.mark.slow
def test_recomputing_agrees_with_the_search_for_unused_parameters(train_on_two):
    names = ('res2net50', 'timm-resnet18')
    cases = {name: case(config(name, with_cp=True), find_unused=True) for name in names}
    cases['host'] = case(
        dict(type='Res2Net', depth=50, with_cp=True, norm_eval=False), find_unused=True
    )
    results = train_on_two(cases)
    assert {results[name] for name in names} == {''}
    assert MARKED_TWICE in results['host']
