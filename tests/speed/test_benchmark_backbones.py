"""tools/benchmark_backbones.py: real runs of small nets, and mistakes."""

import json

import pytest
import torch

from mmdet_backbones.catalog.inspection import inspect_backbone
from mmdet_backbones.speed import memory as benchmark_memory
from mmdet_backbones.speed.nets import Settings, build_net, count_flops
from mmdet_backbones.speed.timing import benchmark, count_steps, time_rounds

TOOL = 'tools/benchmark_backbones.py'
SMALL = ('--size', '64', '64', '--rounds', '2')
NETS = ('timm/resnet18', 'mmpretrain/mobilenet-v3-small')
YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
FIELDS = {
    'name',
    'parameters',
    'gflops',
    'latency_ms',
    'latency_low_ms',
    'latency_high_ms',
    'images_per_second',
    'peak_memory_mib',
}


def assert_told(done, *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ''
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.slow
def test_json_and_plot_of_two_nets(run_tool, tmp_path):
    plot = tmp_path / 'plot.png'
    done = run_tool(TOOL, *NETS, *SMALL, '--batch', '2', '--json', '--plot', str(plot))
    assert not done.returncode, done.stderr
    content = json.loads(done.stdout)
    assert content['settings']['size'] == [64, 64]
    assert content['environment']['torch'] == torch.__version__
    first, second = content['results']
    assert first.keys() == second.keys() == FIELDS
    assert (first['name'], second['name']) == NETS
    # 1.82 G multiply-adds at 224 x 224, of which the classifier has next to nothing.
    assert first['gflops'] == pytest.approx(2 * 1.81 * (64 / 224) ** 2, rel=0.02)
    assert first['parameters'] == 11_176_512
    for row in (first, second):
        assert 0 < row['latency_low_ms'] <= row['latency_ms'] <= row['latency_high_ms']
        assert row['images_per_second'] == pytest.approx(
            2000 / row['latency_ms'], rel=0.01
        )
    # The weights alone are 42.6 MiB.
    assert 42 < first['peak_memory_mib'] < 100
    assert second['peak_memory_mib'] < first['peak_memory_mib']
    assert plot.read_bytes().startswith(b'\x89PNG')
    before = plot.read_bytes()
    refused = run_tool(TOOL, *NETS, *SMALL, '--plot', str(plot))
    assert_told(refused, 'is there already: write --force')
    assert plot.read_bytes() == before


@pytest.mark.slow
def test_a_table_of_folded_nets_in_training_format(run_tool):
    done = run_tool(TOOL, NETS[0], *SMALL, '--fuse', '--channels-last')
    assert not done.returncode, done.stderr
    assert 'timm/resnet18' in done.stdout
    assert 'channels-last' in done.stdout
    assert 'folded' in done.stdout
    assert '11.17 M' in done.stdout


def test_all_mistakes_at_once(run_tool):
    done = run_tool(
        TOOL, 'timm/resnet81', 'nothing', 'resnet18', 'resnet18', '--size', '0', '64',
        '--train', '--fuse',
    )  # fmt: skip
    assert_told(
        done,
        '5 things are wrong',
        "no backbone 'timm/resnet81'. Nearest: timm/resnet18",
        "no backbone 'nothing'",
        'named twice: resnet18',
        'must be positive, got 0 x 64',
        '--fuse is for inference',
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu(run_tool):
    assert_told(run_tool(TOOL, NETS[0], '--device', 'cuda'), 'sees no GPU')


@pytest.mark.parametrize(
    ('plot', 'words'),
    [('plot.txt', 'write --plot'), ('nowhere/plot.png', "no folder '")],
)
def test_plots_that_cannot_be_written(run_tool, tmp_path, plot, words):
    done = run_tool(TOOL, NETS[0], '--plot', str(tmp_path / plot))
    assert_told(done, words)


def test_an_image_that_a_net_does_not_take(run_tool):
    done = run_tool(TOOL, 'timm/beit_base_patch16_224', *SMALL)
    assert_told(done, 'timm/beit_base_patch16_224', '224')


def test_a_training_step_leaves_gradients():
    settings = Settings(size=(64, 64), train=True, rounds=2)
    prepared = build_net('timm/resnet18', settings)
    assert prepared.net.training
    inference = build_net('timm/resnet18', Settings(size=(64, 64)))
    forward = count_flops(inference, settings)
    # Backward is twice forward, less the gradient of the image.
    assert 2.5 * forward < count_flops(prepared, settings) < 3 * forward
    assert all(p.grad is not None for p in prepared.net.parameters())
    assert all(p.grad is None for p in inference.net.parameters())


@pytest.mark.parametrize('train', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_inside_a_detector(train):
    settings = Settings(size=(64, 96), batch=2, detector=YOLOX, train=train)
    prepared = build_net('timm/tf_efficientnet_lite0', settings)
    assert type(prepared.net).__name__ == 'YOLOX'
    assert prepared.net.training == train
    assert prepared.net.backbone.model_name == 'tf_efficientnet_lite0'
    assert (prepared.net.bbox_head.multi_level_conv_obj[0].weight.grad is None) != train
    alone = build_net('timm/tf_efficientnet_lite0', Settings(size=(64, 96)))
    assert prepared.parameters > alone.parameters


@pytest.mark.slow
def test_a_detector_is_folded():
    settings = Settings(size=(64, 64), detector=YOLOX, fuse=True, channels_last=True)
    net = build_net('timm/tf_efficientnet_lite0', settings).net
    assert net.fused.folded > 48
    assert not net.fused.left


def test_what_a_detector_does_not_take(run_tool):
    done = run_tool(TOOL, 'timm/beit_base_patch16_224', '--detector', YOLOX, *SMALL)
    assert_told(done, 'timm/beit_base_patch16_224', 'images of')
    done = run_tool(TOOL, NETS[0], '--detector', 'mmdet::yolox/nothing.py', *SMALL)
    assert_told(done, 'nothing.py')


@pytest.mark.slow
def test_rounds_take_turns_and_everyone_is_first():
    settings = Settings(size=(64, 64), rounds=2)
    order = []
    steps = []
    subjects = [build_net(name, settings) for name in NETS]
    times = time_rounds(subjects, settings, order.append)
    assert [len(each) for each in times] == [2, 2]
    rounds = [line for line in order if line.startswith('round')]
    assert rounds == [
        f'round 1: {NETS[0]}',
        f'round 1: {NETS[1]}',
        f'round 2: {NETS[1]}',
        f'round 2: {NETS[0]}',
    ]
    benchmark(NETS[:1], settings, steps.append)
    assert len(steps) == count_steps(NETS[:1], settings)


@pytest.mark.slow
def test_memory_is_not_that_of_the_parent():
    settings = Settings(size=(64, 64))
    ballast = torch.ones(100 * 2**20)
    needed = benchmark_memory.peak_memory('timm/resnet18', settings)
    assert ballast.sum() > 0
    assert 42 * 2**20 < needed < 100 * 2**20


@pytest.mark.slow
def test_memory_grows_with_the_batch_in_training():
    few, many = (
        benchmark_memory.peak_memory(
            'mmpretrain/mobilenet-v3-small', Settings((64, 64), batch, train=True)
        )
        for batch in (1, 32)
    )
    assert many > 1.5 * few


@pytest.mark.parametrize('train', [False, True])
def test_attention_is_counted_as_on_the_meta_device(train):
    # PiT also returns views of parameters, at which torch's counter stops.
    settings = Settings(size=(224, 224), train=train)
    prepared = build_net('timm/pit_ti_224', settings)
    forward = 2 * inspect_backbone('timm/pit_ti_224', (224, 224)).macs
    found = count_flops(prepared, settings)
    # Attention without the matrix of its weights recomputes it in backward.
    assert 2.9 * forward < found < 3.2 * forward if train else found == forward
    assert all(parameter.requires_grad for parameter in prepared.net.parameters())
