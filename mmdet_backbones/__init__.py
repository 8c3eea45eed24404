"""Backbones for MMDetection 3.x, checked before training starts.

Importing the package is cheap: it prepares the host libraries and nothing else.
Backbones are built by name, ``type='mmdet_backbones.Res2Net'``, and mmengine
imports their modules the first time one is asked for. ``__init__.pyi`` lists the
names that can be imported from here, each of which brings its own module.
"""

from .compat.hooks import install

__version__ = '0.1.0'

install()

try:
    from lazy_loader import attach_stub
except ModuleNotFoundError:
    # `import torch` runs this module wherever the package is installed, and the
    # doctor runs where nothing else is: neither may end here.
    def __getattr__(name: str) -> object:
        if name.startswith('_'):
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        raise ImportError(
            f"'from mmdet_backbones import {name}' needs lazy_loader, which is not "
            'installed: write\n  pip install lazy_loader'
        )
else:
    __getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
    __all__ += ['__version__']
