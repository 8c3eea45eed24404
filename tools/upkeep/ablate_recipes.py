"""Train small detectors by variants of the recipe for few images, and write the tables.

The grids and seeds are fixed. Each run is one line of benchmarks/recipes.jsonl; an
interrupted command goes on where it stopped. docs/recipes.md is written from all lines:

    mmdet-backbones data raccoon_dataset -o raccoon
    python tools/upkeep/ablate_recipes.py --data raccoon --weights FILE.pth
    python tools/upkeep/ablate_recipes.py --tables
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from recipe_tables import page

from mmdet_backbones.errors import run

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / 'benchmarks/recipes.jsonl'
PAGE = ROOT / 'docs/recipes.md'
BACKBONE = 'timm/tf_efficientnet_lite0'
BASES = {
    'YOLOX': 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    'RTMDet': 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'RetinaNet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'Faster R-CNN': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
}
SEEDS = (0, 1, 2)
_MIXING = ('Mosaic', 'RandomAffine', 'MixUp', 'CachedMosaic', 'CachedMixUp')
Edit = Callable[[Any], None]


def _rate(factor: float) -> Edit:
    def edit(cfg: Any) -> None:
        cfg.optim_wrapper.optimizer.lr *= factor

    return edit


def _average(cfg: Any) -> Any:
    return next(h for h in cfg.custom_hooks if h.type == 'EMAHook')


def _no_average(cfg: Any) -> None:
    cfg.custom_hooks = [h for h in cfg.custom_hooks if h.type != 'EMAHook']


def _buffers(cfg: Any) -> None:
    _average(cfg).update(update_buffers=True)


def _window(factor: float) -> Edit:
    def edit(cfg: Any) -> None:
        _average(cfg).momentum /= factor

    return edit


def _base_average(cfg: Any) -> None:
    """The one of mmdet's YOLOX, for three hundred epochs of COCO."""
    _average(cfg).update(ema_type='ExpMomentumEMA', momentum=1e-4, update_buffers=True)


def _share(value: float) -> Edit:
    def edit(cfg: Any) -> None:
        wrapper = cfg.optim_wrapper
        wrapper.constructor = 'mmdet_backbones.LayerDecayConstructor'
        wrapper.paramwise_cfg.setdefault('decay_rate', 1.0)
        wrapper.paramwise_cfg.backbone_lr_mult = value

    return edit


def _same_rate(cfg: Any) -> None:
    """Where the recipe has another for the backbone; elsewhere it is the recipe."""
    del cfg.optim_wrapper.paramwise_cfg['backbone_lr_mult']


def _backbone(**arguments: Any) -> Edit:
    return lambda cfg: cfg.model.backbone.update(arguments)


def _no_freezing(cfg: Any) -> None:
    del cfg.model.backbone['frozen_stages']


def _closing(epochs: int) -> Edit:
    def edit(cfg: Any) -> None:
        for hook in cfg.custom_hooks:
            if 'num_last_epochs' in hook:
                hook.num_last_epochs = epochs
            elif 'switch_epoch' in hook:
                hook.switch_epoch = cfg.train_cfg.max_epochs - epochs

    return edit


def _no_mosaic(cfg: Any) -> None:
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline = [t for t in dataset.pipeline if t.type not in _MIXING]


def _norm_momentum(value: float) -> Edit:
    def edit(cfg: Any) -> None:
        for part in (cfg.model.neck, cfg.model.bbox_head):
            part.norm_cfg.update(momentum=value)

    return edit


def _group_norm(cfg: Any) -> None:
    for part in (cfg.model.neck, cfg.model.bbox_head):
        part.norm_cfg = dict(type='GN', num_groups=4)  # the narrowest layer has 20


def _flat(cfg: Any) -> None:
    """Cosine from the start, as in most schedules."""
    cosine = cfg.param_scheduler[1]
    cosine.update(begin=0, T_max=cosine['end'])


def _regions(count: int) -> Edit:
    def edit(cfg: Any) -> None:
        cfg.model.train_cfg.rcnn.sampler.num = count

    return edit


# Factor, value, what of the swap and of its config is another than in the recipe.
Variant = tuple[str, str, dict[str, Any], Edit | None]
RECIPE: Variant = ('recipe', 'as swap writes it', {}, None)
VARIANTS: tuple[Variant, ...] = (
    RECIPE,
    ('recipe', "mmdet's base (--recipe base)", dict(recipe='base'), None),
    ('rate', 'x 0.3', {}, _rate(0.3)),
    ('rate', 'x 3', {}, _rate(3.0)),
    ('average', 'none', {}, _no_average),
    ('average', 'of running statistics too', {}, _buffers),
    ('average', 'half as long', {}, _window(0.5)),
    ('average', 'twice as long', {}, _window(2.0)),
    ('average', "mmdet's (ExpMomentumEMA, 1e-4)", {}, _base_average),
    ('backbone to heads', '1 : 1', {}, _same_rate),
    ('backbone to heads', '1 : 3', {}, _share(0.3)),
    ('backbone to heads', '1 : 10', {}, _share(0.1)),
    ('schedule', 'cosine from the start', {}, _flat),
    ('mosaic and mixup', 'to the end', {}, _closing(0)),
    ('mosaic and mixup', 'none', {}, _no_mosaic),
    ('drop path', '0.1', {}, _backbone(drop_path_rate=0.1)),
    ('freezing', 'up to stride 4', {}, _backbone(frozen_stages=2)),
    ('freezing', 'none', {}, _no_freezing),
    ('norm_eval', 'True', {}, _backbone(norm_eval=True)),
    ('norm_eval', 'False', {}, _backbone(norm_eval=False)),
    ('norm momentum', '0.1', {}, _norm_momentum(0.1)),
    ('norms of neck and head', 'GN', {}, _group_norm),
    ('size', '96', dict(size=(96, 96)), None),
    ('size', '192', dict(size=(192, 192)), None),
    ('regions', '512 of an image', {}, _regions(512)),
)


def _config(args: argparse.Namespace, detector: str, variant: Variant) -> Any:
    """The swapped config of a variant, or None if it is the recipe itself."""
    from mmengine.config import Config

    from mmdet_backbones.swap.swapping import SwapOptions, save

    _, _, changes, edit = variant
    with tempfile.TemporaryDirectory() as folder:
        options = dict(
            base=BASES[detector],
            name=BACKBONE,
            out=Path(folder, 'swapped.py'),
            checkpoint=args.weights,
            data=args.data,
            epochs=args.epochs,
            batch=4,
            size=(args.size, args.size),
        )
        cfg = Config.fromfile(save(SwapOptions(**{**options, **changes})))
    if edit is not None:
        before = cfg.pretty_text
        try:
            edit(cfg)
        except (AttributeError, KeyError):
            return None  # of another kind of detector
        if cfg.pretty_text == before:
            return None
    return cfg


def _train(cfg: Any, seed: int, folder: str) -> dict[str, float]:
    """Train in this process; what was measured at the end."""
    import torch

    from mmdet_backbones.engine import launch, running

    torch.set_num_threads(1)
    cfg.merge_from_dict(dict(launcher='none', resume=False, work_dir=folder))
    cfg.randomness = dict(seed=seed)
    cfg.train_cfg.val_interval = cfg.train_cfg.max_epochs
    cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', interval=-1, save_last=False
    )
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    # Timing formats while another training runs would say little.
    launch.add_hook(cfg, dict(type='mmdet_backbones.ChannelsLastHook', measure=False))
    launch.apply_lr_scaling(cfg)
    runner = launch.build_runner(cfg)
    start = time.monotonic()
    running.train(runner, force=True)
    scalars = runner.message_hub.log_scalars
    return dict(
        AP=round(scalars['val/coco/bbox_mAP'].current(), 4),
        AP50=round(scalars['val/coco/bbox_mAP_50'].current(), 4),
        iterations=runner.iter,
        seconds=round(time.monotonic() - start),
    )


def _run(record: Path, key: Mapping[str, Any], cfg: Any) -> None:
    """Train and note it; a training that fails is a line too."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found: dict[str, Any] = dict(_train(cfg, key['seed'], folder))
        except (ValueError, RuntimeError) as error:
            found = dict(failed=str(error)[:300])
    optimizer = cfg.optim_wrapper.optimizer
    found |= dict(optimiser=f'{optimizer.type} {optimizer.lr:.2g}')
    with record.open('a', encoding='utf-8') as file:
        file.write(json.dumps({**key, **found}) + '\n')


def read(record: Path) -> list[dict[str, Any]]:
    """Read all runs that are noted."""
    if not record.is_file():
        return []
    return [json.loads(line) for line in record.read_text('utf-8').splitlines()]


def _keys(
    args: argparse.Namespace,
) -> Iterator[tuple[dict[str, Any], Variant]]:
    """All runs, the first seeds of all first."""
    for seed in args.seeds:
        for variant in VARIANTS:
            if args.factors and variant[0] not in args.factors:
                continue
            for detector in args.detectors:
                data = Path(args.data).name
                yield (
                    dict(
                        data=data,
                        detector=detector,
                        size=args.size,
                        epochs=args.epochs,
                        factor=variant[0],
                        value=variant[1],
                        seed=seed,
                    ),
                    variant,
                )


def ablate(args: argparse.Namespace) -> None:
    """Train whatever is not noted yet, each in a process of its own."""
    from mmdet.utils import register_all_modules

    import mmdet_backbones  # noqa: F401 - registers

    register_all_modules(init_default_scope=False)
    for key, variant in _keys(args):
        known = ({k: row.get(k) for k in key} for row in read(args.record))
        if key in known:
            continue
        cfg = _config(args, key['detector'], variant)
        if cfg is None:
            continue
        sys.stderr.write(f'{" ".join(map(str, key.values()))}\n')
        child = multiprocessing.get_context('fork').Process(
            target=_run, args=(args.record, key, cfg)
        )
        child.start()
        child.join()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', help='data set as `mmdet-backbones data` makes it')
    parser.add_argument('--weights', help='ImageNet weights of EfficientNet-Lite0')
    parser.add_argument('--detectors', nargs='+', choices=BASES, default=list(BASES))
    parser.add_argument('--factors', nargs='+', choices={v[0] for v in VARIANTS})
    parser.add_argument('--seeds', nargs='+', type=int, default=SEEDS)
    parser.add_argument('--size', type=int, default=128)
    parser.add_argument('--epochs', type=int, default=6)
    parser.add_argument('--record', type=Path, default=RECORD)
    parser.add_argument('--tables', action='store_true', help=f'write {PAGE.name}')
    args = parser.parse_args(arguments)
    if args.tables:
        PAGE.write_text(page(read(args.record)), encoding='utf-8')
        return
    if not args.data or not args.weights:
        parser.error('--data and --weights are needed, or --tables')
    args.weights = os.path.abspath(args.weights)
    ablate(args)


if __name__ == '__main__':
    run(main)
