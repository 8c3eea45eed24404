"""Candidates of a search: every backbone that is meant, or why it is left out."""

from __future__ import annotations

import json

import pytest

from mmdet_backbones.catalog.conditions import fits_licence
from mmdet_backbones.catalog.listing import list_backbones
from mmdet_backbones.errors import UserError
from mmdet_backbones.search.candidates import OWN, Candidate, Wishes, find_candidates

SIZES = [(64, 64), (96, 128)]
LITE = 'timm/*lite*'


def found(*patterns, **wishes):
    return find_candidates(Wishes(patterns, **wishes), SIZES)


def test_each_backbone_and_size_is_a_row_once():
    candidates = found(LITE, 'timm/efficientnet_lite0', 'torchvision/resnet18')
    listing = list_backbones(LITE)
    names = {row.entry.name for row in listing.rows} | set(listing.refused)
    assert len(names) > 5
    assert {c.name for c in candidates} == names | {'torchvision/resnet18'}
    keys = [c.key for c in candidates]
    assert len(keys) == len(set(keys)) == len(SIZES) * (len(names) + 1)


def test_who_is_in_meets_every_wish_and_who_is_out_says_why():
    candidates = found('timm/*vit*', licence='permissive', max_params=10_000_000)
    kept = [c for c in candidates if not c.refused]
    left = [c for c in candidates if c.refused]
    assert kept
    assert left
    for one in kept:
        assert one.params <= 10_000_000
        assert fits_licence(one.licence, 'commercial')
        assert one.weights
    for one in left:
        large = one.params is not None and one.params > 10_000_000
        assert ('--max-params' in one.refused) == large
        if one.weights and not fits_licence(one.licence, 'commercial'):
            assert f'is {one.licence}, --licence is permissive' in one.refused
    assert candidates == [*kept, *left]


def test_weights_are_the_usual_ones_or_the_users_or_none():
    name = 'timm/efficientnet_lite0'
    (usual, _) = found(name)
    assert (usual.weights, usual.licence) == ('timm://efficientnet_lite0', 'apache-2.0')
    (own, _) = found(name, checkpoints={name: 'mine.pth'}, licence='mit')
    assert (own.weights, own.licence, own.refused) == ('mine.pth', OWN, '')
    (none, _) = found(name, no_weights=True)
    assert (none.weights, none.licence, none.refused) == (None, None, '')
    # Ours has none that everybody means.
    (ours, _) = found('res2net50_26w_4s')
    assert '--no-weights' in ours.refused
    assert '--checkpoint res2net50_26w_4s=' in ours.refused
    assert not any(c.refused for c in found('res2net50_26w_4s', no_weights=True))


def test_tags_of_weights_bring_their_own_licence():
    (bare, _) = found('timm/convnext_tiny')
    (tagged, _) = found('timm/convnext_tiny.fb_in22k')
    assert tagged.params == bare.params
    assert tagged.licence == 'apache-2.0'


def test_a_candidate_survives_its_file():
    for one in found(LITE):
        assert Candidate.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_all_mistakes_at_once():
    with pytest.raises(UserError) as error:
        found('timm/resnet81', 'timm/*nosuch*', LITE)
    assert "no backbone 'timm/resnet81'. Nearest: timm/resnet18" in str(error.value)
    assert "matches 'timm/*nosuch*'" in str(error.value)
    with pytest.raises(UserError, match='no backbone of the search: write --backbones'):
        found(LITE, checkpoints={'timm/resnet18': 'mine.pth'})
