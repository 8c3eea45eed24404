"""Maps of a frozen backbone that are kept on disk, and images that change."""

from __future__ import annotations

from collections.abc import Iterator

from ..backbones.contract import Backbone
from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import type_name
from ..engine.steady_images import unsteady_images
from ..levels import ALL
from .findings import Finding, line


def check_cached_maps(detector: DetectorConfig) -> Iterator[Finding]:
    """Report what ``CachedMapsHook`` would refuse."""
    hooks = [
        hook
        for hook in detector.config.get('custom_hooks') or ()
        if type_name(hook) == 'CachedMapsHook'
    ]
    if not hooks:
        return
    net = detector.net
    if not (isinstance(net, Backbone) and net.wholly_frozen):
        yield Finding(
            'cached maps',
            f'{detector.key}.backbone.frozen_stages',
            'CachedMapsHook keeps maps of a backbone that is frozen as a whole',
            (line(f'{detector.key}.backbone.frozen_stages', ALL),),
        )
    if detector.config.get('compile'):
        problem = 'CachedMapsHook reads files, which a compiled model cannot'
        yield Finding('cached maps', 'compile', problem, (line('compile', False),))
    steady = hooks[0].get('steady', ())
    for key, problem, value in unsteady_images(detector.config, steady):
        yield Finding(
            'cached maps', key, f'CachedMapsHook: {problem}', (line(key, value),)
        )
