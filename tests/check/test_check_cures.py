"""Every line that the check says to write, once written, removes its finding."""

import functools

import pytest
import timm
import torch
from config_files import CONFIGS, ROOT, read
from cures import Draft, Tally, follow
from mistakes import MISTAKES, SIZES, ZOO_MISTAKES, of_weights
from planted import PLANTED

# Whose cure is another file, another class or a size that only its author knows.
NO_LINE = {'type', 'unknown', 'weights', 'backbone', 'random weights'}


@functools.cache
def zoo():
    """One config for each backbone, neck and detector."""
    chosen = {}
    for name in CONFIGS:
        model = read(name).model
        net, neck = model.backbone, model.get('neck') or {}
        kind = (net.type, net.get('model_name'), neck.get('type'), model.type)
        chosen.setdefault(kind, name)
    return tuple(chosen.values())


@pytest.fixture(scope='module')
def tally():
    counts = Tally()
    yield counts
    print(f'\n{counts}')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A classifier's file, with random weights."""
    path = tmp_path_factory.mktemp('weights') / 'resnet18.pth'
    torch.save(timm.create_model('resnet18').state_dict(), path)
    return path


def cured(draft, tally):
    own = follow(draft, Tally())
    tally.lines += own.lines
    tally.findings += own.findings
    tally.without += own.without
    return own


# One of each kind; the others take as long and say little more.
QUICK = {
    'channels of another net',
    'a stride twice',
    'strides of the head',
    'arguments of the base',
    'images of one size',
    'raw images for weights of ImageNet',
    'frozen and random',
    'plugins on a backbone of timm',
    'plugins on a backbone of mmpretrain',
    'frozen_stage on a backbone of torchvision',
    'style of the base, written again',
    'arguments of the base and a typo',
    'levels of a ResNet on a ConvNeXt',
    'a depth that is not there',
    'weights from two sources',
}


def marked(names):
    """Leave all but the quick ones to the slow tests."""
    assert set(names) >= QUICK
    marks = {name: () if name in QUICK else pytest.mark.slow for name in names}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


@pytest.mark.parametrize('name', marked([*PLANTED, *MISTAKES]))
def test_planted_mistakes(name, tmp_path, tally):
    base, model, *_ = {**PLANTED, **MISTAKES}[name]
    own = cured(Draft(tmp_path, base, dict(model=model)), tally)
    assert set(own.without) <= NO_LINE
    assert own.lines or own.without


@pytest.mark.parametrize('name', of_weights('resnet18.pth'))
def test_mistakes_with_weights(name, tmp_path, tally, weights):
    base, model, lines = of_weights(str(weights))[name]
    own = cured(Draft(tmp_path, base, dict(model=model)), tally)
    assert (own.lines > 0) == lines


@pytest.mark.slow
@pytest.mark.parametrize('model_name', SIZES)
def test_sizes_that_do_not_divide(model_name, tmp_path, tally):
    base, model = SIZES[model_name]
    own = cured(Draft(tmp_path, base, dict(model=model)), tally)
    assert own.findings
    assert set(own.without) <= {'random weights'}


@pytest.mark.parametrize(
    'step',
    [
        pytest.param(3, marks=pytest.mark.slow, id='a third of them'),
        pytest.param(1, marks=pytest.mark.exhaustive, id='all'),
    ],
)
@pytest.mark.parametrize('mistake', ZOO_MISTAKES)
def test_mistakes_in_the_shipped_configs(mistake, step, tmp_path, tally):
    own, tried = Tally(), 0
    # Each mistake has other configs, so that every config has some.
    for name in [*zoo()][[*ZOO_MISTAKES].index(mistake) % step :: step]:
        model = ZOO_MISTAKES[mistake](read(name).model)
        if model is None:
            continue
        follow(Draft(tmp_path, str(ROOT / name), dict(model=model)), own)
        tried += 1
    tally.lines += own.lines
    tally.findings += own.findings
    tally.without += own.without
    print(f'\n{mistake} in {tried} configs: {own}')
    assert tried
    assert own.findings >= tried
    assert set(own.without) <= {'weights'}
