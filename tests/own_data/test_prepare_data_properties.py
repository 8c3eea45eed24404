"""Folders that are damaged at random: told or read, and never a traceback."""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from own_folders import FORMATS, WRITERS, load, scenes, state_of
from rich.console import Console

from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.for_config import read_folder
from mmdet_backbones.own_data.prepare import DataOptions, prepare

pytestmark = pytest.mark.slow

ODD = (
    None, True, False, 0, 1, -1, 7, 8, 10, 1.5, 1e308, -1e308, 10**400, float('nan'),
    float('inf'), '', ' ', '0', '7', '10', 'x', 'tree', 'a\ud800', '\0', '\x1b[2J',
    '../..', '/etc/passwd', 'e\u0301', 'x' * 20_000, [], {}, [None], [[1, 2, 3]],
    {'a': 1}, [1, 2, 3, 4], [[1, 2, 30, 4, 5, 60]], {'size': [1, 1], 'counts': 'x'},
    {'size': [60, 80], 'counts': [-1, 4801]},
)  # fmt: skip
WORDS = (
    '0', '-1', '1e999', 'nan', '', 'x', '<', '>', '&lt;', '&x;', '"', "'", '\\', '{',
    '[', ']]', '}', ':', ',', '\n', '\t', '- ', '!!python/name:os.system', '*a', '&a ',
    '<<: ', '<!DOCTYPE a [<!ENTITY x "y">]>', '<object>',
    '<bndbox><xmin>1</xmin></bndbox>', '<?xml version="1.0" encoding="utf-7"?>',
    '\ufeff', '\u2028', '\ud7ff', '1' * 5000,
)  # fmt: skip
NAMES = (
    b'a.png', b'\xff.png', b'x' * 250, b'e\xcc\x81.png', b' .png', b'.png', b'a.json',
    b'train.txt', b'classes.txt', b'data.yaml', b'a\nb.png', b'-o', b'a.xml', b'val',
    b'photo_0.PNG', b'photo_1.png', b'photo_1.png_x00000_y00000.png', b'photo_0.txt',
)  # fmt: skip
FILES = (b'', b'\0' * 99, b'\xff\xfe', b'%!PS', b'GIF89a', b'\x89PNG\r\n\x1a\n', b'{}',
         b'[]', b'<annotation/>', b'0 .5 .5 .2 .2', b'names: [a]', b'BM' + b'\xff' * 60,
         b'{"images": [], "annotations": []}', b'{"shapes": []}')  # fmt: skip
# A hang is the failure, so what takes longer is not waited for.
LIMIT, MEMORY, EXAMPLES = 10, 1 << 30, 120


def often(times):
    """Run a property so often; a smaller example of a hang would take its time."""
    return settings(
        max_examples=times, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def places(content, found=None):
    """Return every container of a JSON file and each key in it."""
    found = [] if found is None else found
    for key in content if isinstance(content, dict) else range(len(content)):
        found.append((content, key))
        if isinstance(content[key], (dict, list)):
            places(content[key], found)
    return found


def change_values(draw, path):
    content = json.loads(path.read_text(encoding='utf-8', errors='replace'))
    for _ in range(draw(st.integers(1, 4))):
        there = places(content)
        if not there:
            return
        holder, key = draw(st.sampled_from(there))
        how = draw(st.sampled_from(('replace', 'replace', 'drop', 'twice')))
        if how == 'replace':
            holder[key] = draw(st.sampled_from(ODD))
        elif how == 'drop':
            del holder[key]
        elif isinstance(holder, list):
            holder.append(holder[key])
    path.write_text(json.dumps(content))


def change_text(draw, path):
    content = path.read_bytes()[:20_000]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        gone = draw(st.sampled_from((0, 0, 1, 3, 10)))
        word = draw(st.sampled_from(WORDS)).encode('utf-8', 'surrogatepass')
        content = content[:at] + word + content[at + gone :]
    replace(path, content)


def change_bytes(draw, path):
    content = bytearray(path.read_bytes())
    for _ in range(draw(st.integers(1, 8)) if content else 0):
        at = min(draw(st.integers(0, 2000)), len(content) - 1)
        content[at] = draw(st.integers(0, 255))
    replace(path, bytes(content))


def cut_off(draw, path):
    replace(path, path.read_bytes()[: draw(st.integers(0, 3000))])


def put_another(draw, path):
    replace(path, draw(st.sampled_from(FILES)))


def recode(draw, path):
    text = path.read_bytes().decode('latin-1')
    encoding = draw(st.sampled_from(('utf-16', 'utf-16-be', 'utf-8-sig', 'utf-32')))
    replace(path, text.encode(encoding))


def rename(draw, path):
    name = draw(st.sampled_from(NAMES))
    target = os.path.join(os.fsencode(path.parent), name)
    if not os.path.lexists(target):
        os.rename(path, target)


def no_file(draw, path):
    path.unlink()
    how = draw(st.sampled_from(('pipe', 'folder', 'loop', 'nothing', 'zero', 'other')))
    if how == 'pipe':
        os.mkfifo(path)
    elif how == 'folder':
        path.mkdir()
    elif how != 'nothing':
        aims = dict(loop=path.name, zero='/dev/zero', other='/proc/self/mem')
        path.symlink_to(aims[how])


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def damage(draw, root):
    for _ in range(draw(st.integers(1, 3))):
        files = sorted(p for p in root.rglob('*') if p.is_file() and not p.is_symlink())
        # There are more images than files that say something of them.
        texts = [p for p in files if p.suffix not in ('.png', '.PNG')]
        chosen = draw(st.sampled_from((files, texts, texts))) or files
        if not chosen:
            return
        path = draw(st.sampled_from(chosen))
        ways = [
            change_text,
            change_bytes,
            cut_off,
            put_another,
            recode,
            rename,
            no_file,
        ]
        if path.suffix == '.json':
            ways += [change_values] * 6
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            draw(st.sampled_from(ways))(draw, path)


@contextlib.contextmanager
def guarded():
    """Stop what takes too long or too much."""

    def stop(*_):
        raise AssertionError(f'longer than {LIMIT} s')

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) << 10 < MEMORY


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('folders')
    made = scenes(4)
    for kind, writer in WRITERS.items():
        writer(root / kind, made)
        for split, names in (('train', [*made][:3]), ('val', [*made][3:])):
            some = {name: made[name] for name in names}
            writer(root / f'{kind} with splits', some, split)
    path = root / 'coco/annotations/instances_all.json'
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        entry['segmentation'] = [[1, 1, 30, 1, 30, 30]]
    path.write_text(json.dumps(content))
    return root


def check(report, out):
    """What was written is whole, and can be read, shown and learned from."""
    json.dumps(report.to_dict()).encode()
    Console(file=io.StringIO(), width=200).print(report.table())
    for split, figures in report.splits.items():
        coco = load(out / f'annotations/{split}.json')
        assert (len(coco.imgs), len(coco.anns)) == (figures.images, figures.boxes)
        for image in coco.imgs.values():
            assert (out / split / image['file_name']).stat().st_size
        for entry in coco.anns.values():
            image = coco.imgs[entry['image_id']]
            x, y, width, height = entry['bbox']
            assert 0 <= x < x + width <= image['width'] + 0.01
            assert 0 <= y < y + height <= image['height'] + 0.01
            assert entry['iscrowd'] in (0, 1)
            if report.masks:
                shape = coco.annToMask(entry).shape
                assert shape == (image['height'], image['width'])
    assert not [p for p in out.iterdir() if p.name.startswith('.')]
    assert read_folder(str(out)).classes == report.classes


@pytest.mark.parametrize('splits', ['', ' with splits'])
@pytest.mark.parametrize('kind', FORMATS)
def test_a_damaged_folder_is_read_or_told(folders, kind, splits):
    done, told = [], [0]

    @often(EXAMPLES)
    @given(st.data())
    def damaged(data):
        with tempfile.TemporaryDirectory() as place:
            root, out = Path(place, 'mine'), Path(place, 'out')
            shutil.copytree(folders / f'{kind}{splits}', root)
            damage(data.draw, root)
            before = state_of(root)
            options = DataOptions(
                root, out, tile=data.draw(st.sampled_from((None, None, 50))),
                format=data.draw(st.sampled_from((None, kind))),
            )  # fmt: skip
            try:
                with guarded():
                    check(prepare(options), out)
                done.append(True)
            except UserError as error:
                done.append(False)
                told.append(len(str(error)))
                assert not out.exists()
            assert state_of(root) == before

    damaged()
    assert len(done) >= EXAMPLES
    assert max(told) < 20_000
    # Most damage costs a part, not all.
    assert sum(done) > len(done) / 4


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_a_damaged_folder_is_read_or_told_by_data(folders, kind):
    @often(EXAMPLES)
    @given(st.data())
    def damaged(data):
        with tempfile.TemporaryDirectory() as place:
            root = Path(place, 'mine')
            shutil.copytree(folders / f'{kind} with splits', root)
            damage(data.draw, root)
            before = state_of(root)
            with guarded(), contextlib.suppress(UserError):
                read_folder(str(root))
            assert state_of(root) == before

    damaged()
