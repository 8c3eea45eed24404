"""The registries of this package, children of mmengine's.

mmengine imports this module by itself for ``type='mmdet_backbones.X'``, whether or
not the config has ``custom_imports``. Nothing is put into mmdet's own registry, so
mmdet's classes of the same name stay what they are.
"""

from importlib import import_module

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import Registry

DETECTOR_PARTS = ('RTDETR', 'QualityVarifocalLoss')


class ModelRegistry(Registry):
    """Models, of which detectors are imported when one of them is asked for.

    They derive from mmdet's, and importing all of its models takes seconds that no
    backbone should cost.
    """

    def get(self, key: str) -> type | None:
        """Get a class by its name; see mmengine's ``Registry.get``."""
        if key.rpartition('.')[2] in DETECTOR_PARTS:
            import_module('mmdet_backbones.detectors')
        return super().get(key)


MODELS = ModelRegistry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmdet_backbones',
    locations=[
        'mmdet_backbones.backbones',
        'mmdet_backbones.adapters',
        'mmdet_backbones.necks',
    ],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmdet_backbones',
    locations=[
        'mmdet_backbones.engine.cached_maps',
        'mmdet_backbones.engine.checkpoint_hook',
        'mmdet_backbones.engine.display',
        'mmdet_backbones.engine.divergence',
        'mmdet_backbones.engine.hooks',
        'mmdet_backbones.inference.memory_format',
        'mmdet_backbones.runs.examples',
    ],
)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmdet_backbones',
    locations=['mmdet_backbones.engine.coco_metric'],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmdet_backbones',
    locations=['mmdet_backbones.engine.layer_decay'],
)
TASK_UTILS = Registry(
    'task util',
    parent=MMENGINE_TASK_UTILS,
    scope='mmdet_backbones',
    locations=['mmdet_backbones.task_modules'],
)
