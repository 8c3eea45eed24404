"""Maps of frozen backbones that a training computes in its first epoch only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..backbones.contract import Backbone
from ..backbones.map_cache import MapCache
from ..errors import ArgumentError
from ..files import path_of
from ..registry import HOOKS
from .steady_images import unsteady_images


@HOOKS.register_module()
class CachedMapsHook(Hook):
    """Keep the maps of wholly frozen backbones on disk.

    In the first epoch each image is computed and its maps are written, afterwards they
    are read: for ``frozen_stages='all'`` and images without random transforms. The maps
    are those that the net gives, to the bit. A file's name comes from the content of
    the image, the weights and the layers of the net, so that other weights or another
    size never meet a file that is not theirs, and a later training finds those that
    are. Images of the validation are kept too.

    Args:
        folder: Made when missing; several processes and trainings may share it.
        limit_gb: Size that the folder may have, in 10^9 bytes. Maps beyond it are
            computed each time, which is logged. ResNet-50 with the strides 8, 16 and 32
            has 23 MB for an image of 640 x 640.
        steady: Names of transforms of your own that give the same image each time.

    Raises:
        ValueError: For a limit that is not above 0; before the training if no backbone
            is wholly frozen, or images change from epoch to epoch, with the lines to
            write.

    Example:
        >>> custom_hooks = [dict(type='mmdet_backbones.CachedMapsHook', folder='maps')]
    """

    def __init__(
        self, folder: str | Path, limit_gb: float = 20.0, steady: Sequence[str] = ()
    ) -> None:
        if not isinstance(limit_gb, (int, float)) or not limit_gb > 0:
            raise ArgumentError(
                f'CachedMapsHook: limit_gb must be above 0, got {limit_gb!r}: write '
                'limit_gb=20.0',
                dict(limit_gb=20.0),
            )
        self.folder = path_of(folder)
        self.limit_gb = limit_gb
        self.steady = tuple(steady)

    def before_run(self, runner: Runner) -> None:
        """Refuse what cannot be cached, before anything is loaded.

        Raises:
            ValueError: Names all that has to be changed.
        """
        problems = []
        if not _frozen(runner):
            problems.append(
                'no backbone is wholly frozen: write model.backbone.frozen_stages = '
                "'all'"
            )
        if runner.cfg.get('compile'):
            problems.append('a compiled model reads no files: write compile = False')
        problems += [
            f'{key}: {problem}: write {key} = {value!r}'
            for key, problem, value in unsteady_images(runner.cfg, self.steady)
        ]
        if problems:
            lines = ''.join(f'\n  - {problem}' for problem in problems)
            raise ArgumentError(f'CachedMapsHook cannot cache maps:{lines}')

    def before_train(self, runner: Runner) -> None:
        """Open the folder, now that the weights are loaded."""
        limit = int(self.limit_gb * 1e9)
        for name, backbone in _frozen(runner).items():
            cache = MapCache(self.folder, backbone, limit, get_world_size())
            backbone.map_cache = cache
            runner.logger.info(
                f"The maps of {name} are kept in '{cache.folder}', which may grow by "
                f'{cache.room * get_world_size() / 1e9:.3g} GB'
            )

    def after_train_epoch(self, runner: Runner) -> None:
        """Log how many images were read."""
        for name, backbone in _frozen(runner).items():
            if (cache := backbone.map_cache) is not None:
                runner.logger.info(
                    f'Maps of {name}: {cache.read} images read, {cache.computed} '
                    'computed'
                )
                cache.read = cache.computed = 0

    def after_train(self, runner: Runner) -> None:
        """Compute all maps again."""
        for backbone in _frozen(runner).values():
            backbone.map_cache = None


def _frozen(runner: Runner) -> dict[str, Backbone]:
    return {
        name.removeprefix('module.'): module
        for name, module in runner.model.named_modules()
        if isinstance(module, Backbone) and module.wholly_frozen
    }
