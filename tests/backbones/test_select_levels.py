"""How levels are chosen by index or by stride, and the mistakes in that."""

import pytest

from mmdet_backbones.levels import Level, select_levels

LEVELS = [Level(0, 16, 4), Level(1, 32, 8), Level(2, 64, 16), Level(3, 64, 16)]


def test_levels_by_default_are_all_of_them():
    assert select_levels(LEVELS, owner='Net') == tuple(LEVELS)


@pytest.mark.parametrize(
    ('chosen', 'error', 'message'),
    [
        ({'out_indices': (0,), 'out_strides': (4,)}, ValueError, 'not both'),
        ({'out_indices': 2}, TypeError, 'sequence of integers'),
        ({'out_indices': (0, '1')}, TypeError, 'sequence of integers'),
        ({'out_indices': ()}, ValueError, 'at least one'),
        ({'out_indices': (2, 1)}, ValueError, 'shallow to deep'),
        ({'out_indices': (1, 1)}, ValueError, 'once each'),
        ({'out_indices': (3, 9)}, ValueError, 'no level of index 9'),
        ({'out_indices': (-5,)}, ValueError, 'no level of index -5'),
        (
            {'out_indices': (-1, 0)},
            ValueError,
            r'out_indices=\(-1, 0\).*shallow to deep',
        ),
        ({'out_strides': (-1,)}, ValueError, 'no level of stride -1'),
    ],
)
def test_bad_choices_of_levels(chosen, error, message):
    with pytest.raises(error, match=message):
        select_levels(LEVELS, owner='Net', **chosen)


def test_negative_numbers_count_from_the_last_level():
    assert select_levels(LEVELS, (1, -1), owner='Net') == (LEVELS[1], LEVELS[3])
    # A family may count from another number.
    assert select_levels(LEVELS[1:], (-3,), owner='Net') == (LEVELS[1],)


def test_a_stride_is_the_deepest_level_that_has_it():
    assert select_levels(LEVELS, None, (4, 16), owner='Net') == (LEVELS[0], LEVELS[3])


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match='no level of index 9, 7') as error:
        select_levels(LEVELS, (9, 7), owner='Net')
    assert 'shallow to deep' in str(error.value)
