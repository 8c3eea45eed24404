"""The registries of this package, children of mmengine's.

mmengine imports this module by itself for ``type='mmdet_backbones.X'``, whether or
not the config has ``custom_imports``. Nothing is put into mmdet's own registry, so
mmdet's classes of the same name stay what they are.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry(
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
    locations=['mmdet_backbones.engine.hooks'],
)
