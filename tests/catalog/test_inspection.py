"""Levels, parameters and multiply-adds are told without weights, and recorded."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import update_catalog as sweep
from rich.console import Console
from torch import nn

from mmdet_backbones.catalog import find, load_source
from mmdet_backbones.catalog.entries import SOURCES
from mmdet_backbones.catalog.figures import read_figures
from mmdet_backbones.catalog.inspection import inspect_backbone, weights_table
from mmdet_backbones.catalog.published import Published
from mmdet_backbones.levels import Level
from mmdet_backbones.shapes.build import build_weightless
from mmdet_backbones.shapes.structure import probe_levels

INSPECT = 'tools/inspect_backbone.py'


VGG = [(0, 64, 1), (1, 128, 2), (2, 256, 4), (3, 512, 8), (4, 512, 16), (5, 512, 32)]
PYRAMID = [(0, 96, 4), (1, 192, 8), (2, 384, 16), (3, 768, 32)]
EXPECTED = {
    'mmpretrain/shufflenet-v2-1x': [
        (0, 116, 8), (1, 232, 16), (2, 464, 32), (3, 1024, 32),
    ],
    'timm/resnet50': [
        (0, 64, 2), (1, 256, 4), (2, 512, 8), (3, 1024, 16), (4, 2048, 32),
    ],
    'timm/convnext_tiny': PYRAMID,
    'timm/swin_tiny_patch4_window7_224': PYRAMID,
    'timm/vgg16_bn': VGG,
    'mmdet/Darknet-53': [
        (0, 32, 1), (1, 64, 2), (2, 128, 4), (3, 256, 8), (4, 512, 16), (5, 1024, 32),
    ],
    'mmpretrain/swin-tiny': PYRAMID,
}  # fmt: skip


@pytest.mark.parametrize('name', EXPECTED)
def test_inspect_tool(run_tool, name):
    done = run_tool(INSPECT, name, '--json', '--size', '192', '320')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    levels = [(lv['index'], lv['channels'], lv['stride']) for lv in found['levels']]
    assert levels == EXPECTED[name]
    assert [(lv['height'], lv['width']) for lv in found['levels']] == [
        (192 // stride, 320 // stride) for _, _, stride in levels
    ]
    assert sum(found['stages'].values()) == found['parameters']
    # What the backbone says about itself is what came out of it.
    assert found['declared'] == []
    assert [one['usual'] for one in found['weights']].count(True) == 1


def test_inspect_tool_prints_tables(run_tool):
    done = run_tool(INSPECT, 'res2net50_26w_6s')
    assert done.returncode == 0, done.stderr
    assert 'weights' not in done.stdout
    assert 'GMACs at 640 x 640 (multiply-adds' in done.stdout
    assert '51.38 GMACs' in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ['1', '512', '8', '80', 'x', '80'] in rows
    assert ['stage', '4', '22,025,376'] in rows
    assert ['all', '35,002,448'] in rows


@pytest.mark.parametrize(
    ('name', 'size', 'published'),
    [('res2net50_26w_6s', 224, 6.29), ('res2net50_48w_2s', 640, 33.9)],
)
def test_multiply_adds_are_the_published_ones(name, size, published):
    macs = inspect_backbone(name, (size, size)).macs / 1e9
    assert macs == pytest.approx(published, abs=0.06)


def test_views_of_parameters_do_not_stop_the_counting():
    found = inspect_backbone('timm/pit_ti_224', (224, 224))
    # Of the whole net timm's authors publish 0.7 G.
    assert found.macs / 1e9 == pytest.approx(0.7, abs=0.05)


def test_weights_are_laid_out_with_the_usual_ones_marked():
    found = inspect_backbone('torchvision/resnet18', (64, 64))
    found = replace(found, weights=(*found.weights, Published('a/b', 'c', 'mit')))
    screen = io.StringIO()
    Console(width=60, file=screen).print(weights_table(found))
    lines = [line.split() for line in screen.getvalue().splitlines()]
    usual = 'torchvision/resnet18.IMAGENET1K_V1'
    assert lines[1:] == [[usual, '(usual)', 'unknown', '69.8'], ['a/b', 'mit', '-']]


def test_other_channels_change_the_stem_only():
    three, four = (
        inspect_backbone('mmdet/ResNet-18', (64, 96), channels) for channels in (3, 4)
    )
    assert four.parameters - three.parameters == 7 * 7 * 64
    assert next(iter(four.stages)) == 'stem'
    assert {**four.stages, 'stem': 0} == {**three.stages, 'stem': 0}


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['timm/beit_base_patch16_224'], ['(224, 224) only', '--size 224 224']),
        (['timm/convnxt_tiny'], ['timm/convnext_tiny']),
        (['mmdet/Swin-T', '--size', '0', '64'], ['positive integers', '0 x 64']),
        (['mmdet/Darknet-53', '--in-channels', '4'], ['in_channels']),
    ],
)
def test_inspect_tool_with_a_mistake(run_tool, arguments, words):
    done = run_tool(INSPECT, *arguments)
    assert done.returncode == 1
    assert done.stderr.count('error: ') == 1
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize('name', ['mmpretrain/swin-tiny', 'mmdet/Swin-T', 'resnet18'])
def test_nothing_is_allocated(name):
    net = build_weightless(find(name).config)
    assert not net.training
    tensors = [*net.parameters(), *net.buffers()]
    assert tensors
    assert all(tensor.is_meta for tensor in tensors)


def test_probe_levels_refuses_what_is_no_pyramid():
    class Net(nn.Module):
        def __init__(self, *outputs: nn.Module) -> None:
            super().__init__()
            self.parts = nn.ModuleList(outputs)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [part(x) for part in self.parts]

    def strided(stride):
        return nn.Conv2d(3, 8, stride, stride, device='meta')

    levels = probe_levels(Net(strided(4), strided(8), strided(8)))
    assert levels == [Level(0, 8, 4), Level(1, 8, 8), Level(2, 8, 8)]
    for net in (
        Net(strided(8), strided(4)),
        Net(nn.Flatten()),
        Net(nn.Conv2d(3, 8, 1, stride=(4, 8), device='meta')),
    ):
        with pytest.raises(ValueError, match='every output must be a map'):
            probe_levels(net)


def test_a_small_image_does_not_change_the_strides():
    found = inspect_backbone('res2net50_26w_4s', (32, 32))
    assert [level.stride for level in found.levels] == [4, 8, 16, 32]
    assert (found.levels[-1].height, found.declared) == (1, ())


def test_time_is_limited():
    found = sweep._measure_in_time('mmdet/HRNetV2p-W40', 0.05)
    assert found.failed == 'it takes more than 0.05 s'


def test_a_refusal_is_no_failure():
    found = sweep.measure_backbone('mmpretrain/mae_vit-base-p16_amp-coslr-300e')
    assert found.failed is None
    assert 'MAEViT' in found.refused


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    record = tmp_path / 'ours.jsonl'
    chosen = ['res2net50_26w_4s', 'resnet18', 'resnet34']
    run = sweep.resumed_sweep('ours', chosen, record)
    stopped, _ = next(run)
    run.close()
    lines = record.read_text().splitlines()
    assert [json.loads(line).get('name') for line in lines] == [None, stopped]
    # A line of a killed run, and a mark to tell old results from new ones.
    mark = json.dumps({'name': stopped, 'refused': 'marked'})
    record.write_text(f'{lines[0]}\n{mark}\n{{"name": "resn')
    results = dict(sweep.resumed_sweep('ours', chosen, record))
    assert set(results) == set(chosen)
    assert results.pop(stopped).refused == 'marked'
    assert all(result.usable for result in results.values())
    # Another version of the library begins anew.
    record.write_text('{"version": "0.0.1"}\n' + mark + '\n')
    assert all(
        result.usable for _, result in sweep.resumed_sweep('ours', [stopped], record)
    )


def assert_as_recorded(source: str, every: int = 1, jobs: int = 1) -> None:
    """Measure every nth of a source again; nothing may fail or differ from the file."""
    recorded = read_figures()[source].models
    names = sorted(load_source(source).entries)[::every]
    found = dict(sweep.sweep(names, jobs=jobs))
    assert set(found) == set(names)
    assert {n: m.failed for n, m in found.items() if m.failed is not None} == {}
    assert {n for n in found if found[n] != recorded.get(n)} == set()


@pytest.mark.slow
@pytest.mark.parametrize('source', SOURCES)
def test_backbones_are_as_recorded(source):
    assert_as_recorded(source, every={'timm': 40, 'mmpretrain': 40}.get(source, 8))


@pytest.mark.exhaustive
@pytest.mark.parametrize('source', SOURCES)
def test_every_backbone_is_as_recorded(source):
    assert_as_recorded(source, jobs=2)


@pytest.mark.slow
def test_convnext_large_needs_no_memory_of_its_size():
    code = (
        'import resource, time, timm\n'
        'from mmdet_backbones.adapters.timm import structure\n'
        'from mmdet_backbones.catalog.inspection import inspect_backbone\n'
        'def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n'
        'before, start = peak(), time.process_time()\n'
        'assert inspect_backbone("timm/convnext_large").parameters > 190e6\n'
        'print(peak() - before, time.process_time() - start)'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    mebibytes, seconds = map(float, done.stdout.split())
    # Its weights are 750 MiB.
    assert mebibytes < 200
    assert seconds < 10
