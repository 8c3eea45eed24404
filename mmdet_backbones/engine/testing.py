"""What testing a detector adds to a config, flag by flag."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..detector_config.tree import dataset_of
from ..errors import UserError
from ..files import not_there


def set_checkpoint(cfg: Config, checkpoint: str) -> None:
    """Name the detector's checkpoint.

    Raises:
        UserError: If it is a path and nothing is there.
    """
    problem = None if '://' in checkpoint else not_there(checkpoint, 'checkpoint')
    if problem is not None:
        raise UserError(problem)
    cfg.load_from = checkpoint


def set_visualization(
    cfg: Config, show: bool, show_dir: str | None, wait_time: float
) -> None:
    """Draw the predictions in a window, into a folder, or both.

    Raises:
        UserError: If the config has no visualization hook to do it.
    """
    if not show and not show_dir:
        return
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError(
            '--show and --show-dir need a hook: write default_hooks = '
            "dict(visualization=dict(type='DetVisualizationHook'))"
        )
    hook.draw = True
    if show:
        hook.show = True
        hook.wait_time = wait_time
    if show_dir:
        hook.test_out_dir = show_dir


def set_flip_averaging(cfg: Config) -> None:
    """Test with augmentation: as the config says, or the image and its mirror."""
    cfg.setdefault(
        'tta_model',
        dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        ),
    )
    dataset = dataset_of(cfg, 'test')
    if 'tta_pipeline' not in cfg:
        pipeline = deepcopy(dataset.pipeline)
        packing = dict(pipeline[-1])
        keys = packing.get('meta_keys', ())
        packing['meta_keys'] = (*keys, 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [packing]])
        cfg.tta_pipeline = pipeline
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def dump_predictions(runner: Runner, path: str | None) -> None:
    """Have the predictions written to a pickle file after the test.

    Raises:
        UserError: If the file name does not end in ``.pkl`` or ``.pickle``.
    """
    if path is None:
        return
    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f"--out must end in .pkl or .pickle, got '{path}'")
    from mmdet.evaluation import DumpDetResults

    runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=path))


class _FuseHook(Hook):
    """Test a folded copy of the detector.

    The copy is made when the weights are loaded and the averaged ones of an EMAHook
    are in their place, and is gone before that hook takes them back.
    """

    priority = 'LOWEST'

    def __init__(self, compile: bool, fast: bool) -> None:
        self.compile = compile
        self.fast = fast
        self._unfolded: list[tuple[Any, str, Any]] = []

    def before_test_epoch(self, runner: Runner) -> None:
        """Put the folded detector into the place of the detector."""
        from ..inference.fusion import fastest, fuse_for_inference

        owner, name = _place_of_detector(runner)
        detector = getattr(owner, name)
        self._unfolded.append((owner, name, detector))
        if self.fast:
            setattr(owner, name, fastest(detector))
            return
        fused = fuse_for_inference(detector, self.compile)
        setattr(owner, name, fused)
        print_log(str(fused.fused), 'current')

    def after_test_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Put the detector back."""
        while self._unfolded:
            setattr(*self._unfolded.pop())


def _place_of_detector(runner: Runner) -> tuple[Any, str]:
    """Where the detector is, inside what distributes it or averages over flips."""
    owner, name = runner, 'model'
    while hasattr(getattr(owner, name), 'module'):
        owner, name = getattr(owner, name), 'module'
    return owner, name


def require_fusing(fuse: bool, compile: bool) -> None:
    """Refuse to compile what is not folded.

    Raises:
        UserError: If it shall be.
    """
    if compile and not fuse:
        raise UserError(
            '--compile compiles the folded detector: write --fuse --compile'
        )


def fuse_before_test(
    runner: Runner, fuse: bool, compile: bool, fast: bool = False
) -> None:
    """Have the detector folded once it is loaded, and compiled or fast if asked for."""
    if fuse or fast:
        runner.register_hook(_FuseHook(compile, fast), priority='LOWEST')
