"""Configs and data for runs on several processes, and the start of such a run.

The detectors are shipped configs on a synthetic data set, without augmentation and in
a fixed order, so that runs on one process and on several see the same images.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
CASCADE = 'cascade_rcnn/cascade-rcnn_res2net-50-26w-4s_fpn_1x_coco.py'
YOLOX = 'yolox/yolox-tiny_shufflenet-v2-1x_8xb8-300e_coco.py'
WIDTH, HEIGHT = 128, 96
SIDE = 32


def make_squares(root: Path, train: int = 16, val: int = 8) -> Path:
    """Draw a synthetic data set in COCO format: two dark squares on noise each."""
    generator = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        (root / split).mkdir(parents=True)
        images, boxes = [], []
        for number in range(1, count + 1):
            noise = generator.integers(150, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            picture = Image.fromarray(noise)
            for left in (0, WIDTH // 2):
                x = left + int(generator.integers(0, WIDTH // 2 - SIDE))
                y = int(generator.integers(0, HEIGHT - SIDE))
                corners = (x, y, x + SIDE - 1, y + SIDE - 1)
                ImageDraw.Draw(picture).rectangle(corners, fill=(30, 30, 30))
                boxes.append(
                    dict(id=len(boxes) + 1, image_id=number, category_id=1,
                         area=SIDE**2, bbox=[x, y, SIDE, SIDE], iscrowd=0)
                )  # fmt: skip
            picture.save(root / split / f'{number}.png')
            images.append(
                dict(id=number, file_name=f'{number}.png', width=WIDTH, height=HEIGHT)
            )
        categories = [dict(id=1, name='square')]
        content = dict(images=images, annotations=boxes, categories=categories)
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def read_shipped(name: str) -> dict[str, Any]:
    """Read a shipped config as plain dicts and lists."""
    config = Config.fromfile(ROOT / 'configs' / name).to_dict()
    return json.loads(json.dumps(config, default=list))


def _loader(data: Path, split: str, batch: int) -> dict[str, Any]:
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(
            type='PackDetInputs',
            meta_keys=[
                *('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
            ],
        ),
    ]
    if split == 'val':
        pipeline.insert(1, dict(type='Resize', scale=(WIDTH, HEIGHT)))
    return dict(
        batch_size=batch,
        num_workers=0,
        persistent_workers=False,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CocoDataset',
            data_root=f'{data}/',
            ann_file=f'{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=('square',)),
            test_mode=split == 'val',
            pipeline=pipeline,
        ),
    )


def on_squares(config: dict[str, Any], data: Path, batch: int) -> dict[str, Any]:
    """Train a detector on the squares in a fixed order, without augmentation."""
    config.update(
        train_dataloader=_loader(data, 'train', batch),
        val_dataloader=_loader(data, 'val', 2),
        val_evaluator=dict(type='CocoMetric', ann_file=f'{data}/val.json'),
        val_cfg=dict(type='ValLoop'),
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)
        ),
        param_scheduler=[],
        custom_hooks=[],
        auto_scale_lr=dict(base_batch_size=4),
        randomness=dict(seed=0, deterministic=True),
    )
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg', 'tta_model'):
        config.pop(key, None)
    config['default_hooks']['logger']['interval'] = 1
    config['model']['backbone'].update(init_cfg=None, frozen_stages=-1, norm_eval=True)
    return config


def cascade(data: Path, batch: int) -> dict[str, Any]:
    """Cascade R-CNN on Res2Net whose losses are means over equally many samples.

    The losses of an R-CNN are divided by the number of anchors and regions of this
    process. They are the same number in each process if none is ignored (one
    threshold between positive and negative), none is left to chance (samplers that
    take all), and every image has as many regions as the others.
    """
    config = on_squares(read_shipped(CASCADE), data, batch)
    model = config['model']
    narrow = 64
    model['neck']['out_channels'] = narrow
    model['rpn_head'].update(in_channels=narrow, feat_channels=narrow)
    model['roi_head']['bbox_roi_extractor']['out_channels'] = narrow
    for head in model['roi_head']['bbox_head']:
        head.update(num_classes=1, in_channels=narrow, fc_out_channels=128)
    rpn = model['train_cfg']['rpn']
    rpn['assigner'].update(pos_iou_thr=0.5, neg_iou_thr=0.5)
    rpn['sampler'].update(num=100_000, pos_fraction=1.0)
    model['train_cfg']['rpn_proposal'].update(nms_pre=500, max_per_img=64)
    for stage in model['train_cfg']['rcnn']:
        stage['sampler'].update(num=100_000, pos_fraction=1.0)
    return config


def cascade_in_float64(data: Path, batch: int) -> dict[str, Any]:
    """:func:`cascade`, where the order of a sum does not matter.

    In float32 it changes the last digit, which ten steps make 1e-6 to 1e-5 of in the
    parameters, depending on the CPU.
    """
    config = cascade(data, batch)
    config['custom_imports']['imports'].append('dist_float64')
    return config


def yolox(data: Path, batch: int) -> dict[str, Any]:
    """YOLOX on ShuffleNetV2 whose batch normalisation takes no part.

    Its losses are divided by the mean number of positives of all processes already.
    It stays in float32, which mmdet's SimOTA insists on.
    """
    config = on_squares(read_shipped(YOLOX), data, batch)
    model = config['model']
    model['data_preprocessor'].pop('batch_augments', None)
    model['bbox_head']['num_classes'] = 1
    frozen = dict(type='mmdet_backbones.FrozenBN')
    model['neck']['norm_cfg'] = model['bbox_head']['norm_cfg'] = frozen
    return config


def for_iterations(
    config: dict[str, Any], iterations: int, accumulated: int = 1
) -> dict[str, Any]:
    """Train a number of iterations, and keep their losses and the parameters."""
    config['train_dataloader']['sampler'] = dict(type='InfiniteSampler', shuffle=False)
    config['train_cfg'] = dict(
        type='IterBasedTrainLoop', max_iters=iterations, val_interval=10**6
    )
    config['optim_wrapper']['accumulative_counts'] = accumulated
    config['custom_hooks'] = [dict(type='RecordHook')]
    config['custom_imports']['imports'].append('dist_hooks')
    config['default_hooks']['checkpoint'] = dict(
        type='CheckpointHook', by_epoch=False, interval=10**6, save_last=False
    )
    return config


def write(config: dict[str, Any], path: Path) -> Path:
    """Write a config of plain values."""
    lines = [f'{key} = {value!r}\n' for key, value in config.items()]
    path.write_text(''.join(lines))
    return path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """What a run of ours finds: this clone, and the helper modules of the tests."""
    return {
        **os.environ,
        'PYTHON': sys.executable,
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests' / 'helpers')]),
        'PYTHONWARNINGS': 'ignore',
        'OMP_NUM_THREADS': '1',
        'GLOO_SOCKET_IFNAME': 'lo',
        **more,
    }


def train(
    config: Path, work: Path, processes: int, *flags: str
) -> subprocess.CompletedProcess:
    """Train through the tools: in one process, or in several of this machine."""
    command = [sys.executable, 'tools/train.py', str(config)]
    if processes > 1:
        command = ['tools/dist_train.sh', str(config), str(processes)]
    return subprocess.run(
        [*command, '--no-check', '--work-dir', str(work), *flags],
        cwd=ROOT,
        env=environment(PORT=str(free_port())),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def learning_yolox(data: Path, batch: int) -> dict[str, Any]:
    """YOLOX that learns the squares in 20 epochs, in a shuffled order."""
    config = yolox(data, batch)
    model, shipped = config['model'], read_shipped(YOLOX)['model']
    for part in ('neck', 'bbox_head'):
        model[part]['norm_cfg'] = shipped[part]['norm_cfg']
    model['backbone']['norm_eval'] = False
    config['train_dataloader']['sampler']['shuffle'] = True
    config['optim_wrapper']['optimizer'] = dict(
        type='AdamW', lr=2e-3, weight_decay=0.05
    )
    config['param_scheduler'] = [dict(type='CosineAnnealingLR', T_max=20, eta_min=1e-5)]
    config['train_cfg'] = dict(
        type='EpochBasedTrainLoop', max_epochs=20, val_interval=5
    )
    config['custom_hooks'] = [dict(type='SyncNormHook')]
    config['default_hooks']['checkpoint'] = dict(
        type='CheckpointHook', interval=1, max_keep_ckpts=2
    )
    return config


def start_machine(
    config: Path, work: Path, rank: int, port: int, *flags: str, prefix: tuple = ()
) -> subprocess.Popen:
    """Start one of two machines with one process each, with a log of its own.

    It leads a group of processes, so that all of it can be killed at once.
    """
    log = work.with_name(f'{work.name}_machine{rank}.log').open('w')
    return subprocess.Popen(
        [
            *(*prefix, 'tools/dist_train.sh', str(config), '1', '--no-check'),
            *('--work-dir', str(work), *flags),
        ],
        cwd=ROOT,
        env=environment(
            NNODES='2', NODE_RANK=str(rank), MASTER_ADDR='127.0.0.1', PORT=str(port)
        ),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_machine(machine: subprocess.Popen) -> None:
    """Kill a machine: the script, torchrun and the process that trains."""
    groups = {os.getpgid(child) for child in [machine.pid, *descendants(machine.pid)]}
    for group in groups:
        os.killpg(group, signal.SIGKILL)
    machine.wait()


def descendants(pid: int) -> list[int]:
    """Find the processes that a process started, and those that they started."""
    done = subprocess.run(
        ['ps', '-o', 'pid=', '--ppid', str(pid)], capture_output=True, text=True
    )
    children = [int(word) for word in done.stdout.split()]
    return [*children, *(pid for child in children for pid in descendants(child))]
