"""One detector of any origin, and the images it is given."""

import shutil

import mmcv
import numpy as np
import pytest
import torch
from exported_folders import draw, write_exported
from finders import CLASSES
from mmengine.config import Config
from PIL import Image
from small_detectors import build, save

from mmdet_backbones import Detector
from mmdet_backbones.errors import CheckpointError, UserError

BEST = 'best_coco_bbox_mAP_epoch_3.pth'


def same(one, other, within=0.0):
    assert len(one.scores) == len(other.scores) > 0
    assert np.abs(one.boxes - other.boxes).max() <= within
    assert np.abs(one.scores - other.scores).max() <= within
    assert (one.labels == other.labels).all()


def test_it_finds_what_mmdet_finds(rooted, detector, images):
    from mmdet.apis import inference_detector, init_detector

    config = Config.fromfile(rooted / 'work' / 'config.py')
    theirs = init_detector(config, str(rooted / 'work' / BEST), device='cpu')
    assert detector.names == CLASSES
    for path, mine in zip(images, detector.predict(images), strict=True):
        wanted = inference_detector(theirs, str(path)).pred_instances
        assert (mine.scores == wanted.scores.numpy()).all()
        assert (mine.boxes == wanted.bboxes.numpy()).all()
        assert (mine.labels == wanted.labels.numpy()).all()
        assert mine.boxes.dtype == mine.scores.dtype == np.float32
        assert mine.labels.dtype == np.int64
        assert mine.names == CLASSES


def test_a_fast_one_finds_the_same(rooted, detector, images):
    fast = Detector.load(rooted / 'work', 'cpu', fast=True)
    for one, other in zip(detector.predict(images), fast.predict(images), strict=True):
        same(one, other, 1e-3)


def test_arrays_paths_and_pil_images_are_the_same_image(detector, images):
    path = images[0]
    with Image.open(path) as picture:
        forms = [path, str(path), np.asarray(picture.convert('RGB')), picture.copy()]
    found = detector.predict(forms)
    for one in found[1:]:
        same(found[0], one)
    same(found[0], *detector.predict(forms[2]))
    same(found[0], *detector.predict(str(path)))


def test_batches_of_one_size_find_the_same(detector, images):
    for one, other in zip(
        detector.predict(images), detector.predict(images, batch=3), strict=True
    ):
        same(one, other, 2e-4)


def test_the_threshold_leaves_what_is_below(detector, images):
    every, sure = (detector.predict(images[0], t)[0] for t in (None, 0.6))
    assert len(sure.scores) == (every.scores >= 0.6).sum() > 0
    assert len(every.scores) > len(sure.scores)


def odd_pictures(folder):
    """One picture in the modes that files have."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    deep = Image.fromarray((pixels[..., 0].astype(np.uint16) << 8) + 77)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, picture, options in (
        ('rgba.png', rgb.convert('RGBA'), {}),
        ('grey.png', rgb.convert('L'), {}),
        ('palette.png', rgb.convert('P'), {}),
        ('bit.png', rgb.convert('1'), {}),
        ('deep.png', deep, {}),
        ('cmyk.jpg', rgb.convert('CMYK'), {}),
        ('turned.jpg', rgb, dict(exif=turned)),
    ):
        picture.save(folder / name, **options)
    return sorted(folder.iterdir())


def test_pictures_of_other_modes_are_read_as_mmdet_reads_them(detector, tmp_path):
    paths = odd_pictures(tmp_path)
    assert len(paths) == 7
    for path in paths:
        pixels = detector.read(path)
        assert pixels.dtype == np.uint8
        assert (pixels == mmcv.imread(str(path), channel_order='rgb')).all()
    assert detector.read(tmp_path / 'turned.jpg').shape == (60, 40, 3)


def test_what_is_no_image_is_told(detector, tmp_path, images):
    (tmp_path / 'broken.png').write_bytes(images[0].read_bytes()[:60])
    (tmp_path / 'empty.jpg').write_bytes(b'')
    for path, what in (
        (tmp_path / 'broken.png', 'cannot be read'),
        (tmp_path / 'empty.jpg', 'cannot be read'),
        (tmp_path / 'no.png', 'there is no image'),
        (tmp_path, 'is a directory'),
    ):
        with pytest.raises(UserError, match=what):
            detector.predict([path])
    with pytest.raises(TypeError, match=r'images\[1\].* float64'):
        detector.predict([images[0], np.zeros((4, 4, 3))])
    with pytest.raises(ValueError, match=r'images\[0\]'):
        detector.predict(np.zeros((4, 4), np.uint8)[None])
    with pytest.raises(TypeError, match='NoneType'):
        detector.predict([None])
    with pytest.raises(UserError, match=r'threshold .* batch is 1 or more'):
        detector.predict([], threshold=3, batch=0)
    assert detector.predict([]) == []


@pytest.fixture
def work(rooted, tmp_path):
    return shutil.copytree(rooted / 'work', tmp_path / 'mine')


def test_the_best_checkpoint_that_is_whole_is_taken(work):
    (work / 'best_coco_bbox_mAP_epoch_12.pth').write_bytes(b'half of it')
    shutil.copy(work / BEST, work / 'epoch_20.pth')
    detector = Detector.load(work, 'cpu')
    (note,) = detector.notes
    assert note.startswith(f"'{work / BEST}' is taken, as ")
    assert 'epoch_12.pth' in note
    (work / BEST).unlink()
    detector = Detector.load(work / 'config.py', 'cpu')
    assert 'epoch_20.pth' in detector.notes[0]


def test_without_a_checkpoint_the_line_to_write_is_told(work):
    (work / BEST).unlink()
    with pytest.raises(UserError, match=r'--checkpoint FILE$'):
        Detector.load(work)
    with pytest.raises(UserError, match=r'mmdet_backbones train .*config.py'):
        Detector.load(work / 'config.py')


def test_weights_that_do_not_fill_it_are_refused(rooted, work):
    config = Config.fromfile(work / 'config.py')
    state = build(config).state_dict()
    less = {k: v for k, v in state.items() if 'retina_reg' not in k}
    path = save(work / 'less.pth', less)
    with pytest.raises(UserError, match='would be tested so'):
        Detector.load(work, 'cpu', path)
    torch.save([1, 2], work / 'none.pth')
    with pytest.raises((UserError, CheckpointError)):
        Detector.load(work, 'cpu', work / 'none.pth')


@pytest.mark.parametrize(
    ('name', 'what'),
    [
        (BEST, 'is a checkpoint, which does not say what net'),
        ('model.onnx', 'no detector.json beside it'),
        ('nothing.py', 'there is no config file'),
        ('data', 'neither a work folder nor an exported detector'),
    ],
)
def test_what_is_no_detector_is_told(work, name, what):
    (work / 'data').mkdir()
    with pytest.raises(UserError, match=what):
        Detector.load(work / name)


def test_devices_that_are_not_there_are_told(work):
    with pytest.raises(UserError, match='cannot be used here'):
        Detector.load(work, 'cuda:77')


def test_detectors_that_are_asked_in_words_are_refused(work):
    name = 'mmdet::grounding_dino/grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py'
    with pytest.raises(UserError, match='asked in words'):
        Detector.load(name, 'cpu', work / BEST)


@pytest.mark.parametrize('within', ['', 'detector.json', 'model.onnx'])
def test_an_exported_detector_is_one(tmp_path, within):
    pytest.importorskip('onnxruntime')
    folder = write_exported(tmp_path / 'exported')
    detector = Detector.load(folder / within)
    assert detector.names == ('upright', 'wide')
    image = draw(64, 96, (10, 12, 30, 50), (50, 20, 90, 40))
    (found,) = detector.predict(image)
    assert len(found.scores) == 2
    Image.fromarray(image).save(tmp_path / 'a.png')
    same(found, *detector.predict(tmp_path / 'a.png'))
    assert (detector.read(tmp_path / 'a.png') == image).all()
    with pytest.raises(UserError, match=r'leave --checkpoint\n.*leave --device'):
        Detector.load(folder, 'cuda', 'a.pth')
    with pytest.raises(UserError, match='leave --fast'):
        Detector.load(folder, fast=True)


@pytest.mark.slow
def test_an_export_for_torch_needs_trust(tmp_path):
    folder = write_exported(tmp_path / 'exported', 'torch')
    with pytest.raises(UserError, match='write --trust'):
        Detector.load(folder)
    found = Detector.load(folder, trust=True).predict(draw(64, 96, (10, 12, 30, 50)))
    assert len(found[0].scores) == 1
