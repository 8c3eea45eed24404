"""The table of families and layouts says what is read."""

import logging

import pytest
from weight_layouts import COLUMNS, END, FAMILIES, PAGE, START, cell, row


def documented():
    return PAGE.read_text().partition(START)[2].partition(END)[0].splitlines()


def test_every_family_has_a_row():
    rows = [line.split(' | ')[0] for line in documented() if line.startswith('| ')]
    assert rows[1:] == [f'| {title}' for title in FAMILIES]


@pytest.mark.slow
@pytest.mark.parametrize(
    'title',
    ['ResNet', 'ResNet-D', 'RegNetX', 'MobileNetV2', 'ShuffleNetV2', 'ConvNeXt V2'],
)
def test_a_row_says_what_is_read(title, tmp_path):
    logging.disable(logging.INFO)
    try:
        cells = {layout: cell(FAMILIES[title], layout, tmp_path) for layout in COLUMNS}
    finally:
        logging.disable(logging.NOTSET)
    assert row(title, cells) in documented()
    assert max(found.difference for found in cells.values()) == 0
    for layout, found in cells.items():
        note = f'- {title}, {layout}: {found.reason}'
        assert not found.reason or note in documented()
