"""A small detector, made once for all tests of the room."""

import pytest
from finders import photographs, truth_from, work_folder

from mmdet_backbones import Detector


@pytest.fixture(scope='session')
def rooted(tmp_path_factory):
    """A folder with ``work``, a work folder, and ``data``, a synthetic data set."""
    root = tmp_path_factory.mktemp('predict')
    photographs(root / 'data' / 'val')
    work_folder(root / 'work', root / 'data')
    return root


@pytest.fixture(scope='session')
def detector(rooted):
    found = Detector.load(rooted / 'work', device='cpu')
    images = sorted((rooted / 'data' / 'val').iterdir())
    truth_from(found.predict(images), rooted / 'data' / 'val.json', images)
    return found


@pytest.fixture(scope='session')
def images(rooted):
    return sorted((rooted / 'data' / 'val').iterdir())
