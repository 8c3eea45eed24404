"""Import hooks that prepare the host libraries at the moment they are imported.

Only the standard library is imported here: ``install`` also runs at the end of
``import torch`` (entry point ``torch.backends``), in every program of an
environment, so that mmdet's own tools work without compiled operators too.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

_Action = Callable[[ModuleType], None]


def _know_our_configs(module: ModuleType) -> None:
    # mmengine refuses `_base_ = 'package::...'` for packages outside this table.
    module.MODULE2PACKAGE.setdefault('mmdet_backbones', 'mmdet_backbones')


def _load_own_checkpoints(module: ModuleType) -> None:
    checkpoints = import_module('mmdet_backbones.compat.checkpoints')
    checkpoints.allow_mmengine_classes(module)


def _find_packages(module: ModuleType) -> None:
    import_module('mmdet_backbones.compat.package_paths').extend(module)


def _find_configs(module: ModuleType) -> None:
    import_module('mmdet_backbones.compat.package_paths').find_configs(module.Config)


def _leave_multimodal_out(module: ModuleType) -> None:
    import_module('mmdet_backbones.compat.multimodal').leave_multimodal_out(module)


def _let_ssd_predict(module: ModuleType) -> None:
    # Prediction asks this head, alone of all, for a loss that it does not have.
    module.SSDHead.loss_cls = None


def _find_peaks_in_any_format(module: ModuleType) -> None:
    # CenterNet and CornerNet take a view of heatmaps that only contiguous ones have;
    # in channels-last format, as nets with patches return their maps, it fails.
    find_peaks = module.get_topk_from_heatmap

    @wraps(find_peaks)
    def get_topk_from_heatmap(scores: Any, k: int = 20) -> Any:
        return find_peaks(scores.contiguous(), k)

    module.get_topk_from_heatmap = get_topk_from_heatmap  # type: ignore[attr-defined]


def _keep_modes(module: ModuleType) -> None:
    import_module('mmdet_backbones.compat.batch_norm').keep_modes(module)


def _keep_activations(module: ModuleType) -> None:
    import_module('mmdet_backbones.compat.batch_norm').keep_activations(module)


def _copy_without_group(module: ModuleType) -> None:
    import_module('mmdet_backbones.compat.batch_norm').copy_without_group(module)


AFTER_IMPORT: dict[str, _Action] = {
    'mmcv.ops.sync_bn': _copy_without_group,
    'mmengine.config.utils': _know_our_configs,
    'mmengine.config.config': _find_configs,
    'mmengine.model.utils': _keep_modes,
    'mmengine.runner.checkpoint': _load_own_checkpoints,
    'mmengine.utils.package_utils': _find_packages,
    'mmdet.models.dense_heads.ssd_head': _let_ssd_predict,
    'mmdet.models.utils.gaussian_target': _find_peaks_in_any_format,
    'mmpretrain.utils.dependency': _leave_multimodal_out,
    'timm.layers.norm_act': _keep_activations,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs an action once a module of the table has been imported."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        action = AFTER_IMPORT.get(fullname)
        if action is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, 'find_spec'):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                self._extend(spec.loader, action)
                return spec
        return None

    @staticmethod
    def _extend(loader: importlib.abc.Loader, action: _Action) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            action(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]


class _MissingOperators(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves ``mmcv._ext`` where no other finder has it.

    It stands last in ``sys.meta_path``, so a compiled mmcv is used untouched.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != 'mmcv._ext':
            return None
        origin = 'mmdet_backbones.compat.ext'
        return importlib.machinery.ModuleSpec(fullname, self, origin=origin)

    def exec_module(self, module: ModuleType) -> None:
        ext = import_module('mmdet_backbones.compat.ext')
        module.__doc__ = ext.__doc__
        module.__dict__.update(ext.build_namespace())


def install() -> None:
    """Put the hooks in place; a second call does nothing.

    Modules of the table that are imported already are prepared at once.
    """
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _AfterImport())
    sys.meta_path.append(_MissingOperators())
    for name, action in AFTER_IMPORT.items():
        module = sys.modules.get(name)
        # torch may be imported, and this function called, halfway through a module.
        if module is not None and not getattr(module.__spec__, '_initializing', False):
            action(module)
