"""What of a backbone stays random or still, and what starts so."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..catalog.entries import usual_weights
from ..detector_config.detector import DetectorConfig, trainable
from ..detector_config.tree import type_name
from ..detector_config.weights import pretrained_of
from ..engine.recipes import learns_little_alone
from ..weights.loading.frozen import FIXED_NORMS
from .findings import Finding, line, our_class
from .host_weights import never_trained
from .weights import lines_to_load


def check_frozen(detector: DetectorConfig) -> Iterator[Finding]:
    """Report what is random and never trains, or hardly; and freezing that is late."""
    net = detector.net
    key = f'{detector.key}.backbone'
    yield from _random(detector, net, key)
    net.train()
    late = detector.trained_at_first - trainable(net)
    net.eval()
    if late:
        lines, remove = our_class(detector)
        yield Finding(
            'frozen late',
            f'{key}.frozen_stages',
            f'{type_name(detector.backbone)} freezes {len(late)} parameters only when '
            'training begins, after DistributedDataParallel has counted them: training '
            'on several GPUs stops with "Expected to have finished reduction"',
            lines,
            remove=remove,
        )


def _random(detector: DetectorConfig, net: nn.Module, key: str) -> Iterator[Finding]:
    filled = detector.filled
    if filled is None or pretrained_of(detector.backbone) is not None:
        return
    left = never_trained(net) - filled
    tensors = net.state_dict()
    still = [n for n, p in net.named_parameters() if n in left and not p.requires_grad]
    backbone = detector.backbone
    frozen = backbone.get('frozen_stages', getattr(net, 'frozen_stages', -1))
    source = 'the backbone starts from no pretrained weights'
    wrong = False
    if isinstance(frozen, int) and frozen >= 0 and still:
        wrong = True
        yield Finding(
            'frozen and random',
            f'{key}.frozen_stages',
            f'frozen_stages={frozen} keeps {sum(tensors[n].numel() for n in still):,} '
            f'parameters at random values: {source}',
            (line(f'{key}.frozen_stages', -1),),
        )
    unscaled = any(name.endswith('running_var') for name in left)
    kinds = {type(module).__name__ for module in net.modules()}
    if unscaled and kinds & set(FIXED_NORMS):
        wrong = True
        yield Finding(
            'frozen and random',
            f'{key}.norm_cfg',
            'a frozen kind of batch normalisation without statistics normalises '
            f'nothing: {source}',
            (line(f'{key}.norm_cfg.type', 'BN'),) if 'norm_cfg' in backbone else (),
        )
    elif unscaled and getattr(net, 'norm_eval', False):
        wrong = True
        yield Finding(
            'frozen and random',
            f'{key}.norm_eval',
            'norm_eval=True keeps the statistics of normalisation at 0 and 1, which '
            f'switches it off: {source}',
            (line(f'{key}.norm_eval', False),),
        )
    if not wrong:
        found = random_start(detector)
        yield from [found] if found is not None else ()


def random_start(detector: DetectorConfig) -> Finding | None:
    """Say so where nothing is loaded into the backbone before training starts.

    Whoever means it writes ``init_cfg=None`` into the backbone.

    Args:
        detector: The config, with a backbone that can be built.

    Returns:
        None if there are weights, or if it cannot be known from here.
    """
    if pretrained_of(detector.backbone) is not None or detector.filled != set():
        return None
    key = f'{detector.key}.backbone'
    problem = f'{type_name(detector.backbone)} starts from random weights'
    if detector.backbone.get('init_cfg', '') is None:
        problem += ', as init_cfg=None says'
        return Finding('random weights', key, problem, (), 'note')
    cure = _usual(detector)
    if learns_little_alone(detector.net):
        problem += (
            ', and nets with layer normalisation or attention learn little from the '
            'images of a detector alone'
        )
    else:
        problem += ', and takes a training several times as long (arXiv 1811.08883)'
    if not cure:
        problem += (
            '. No published weights of it are known here: write init_cfg=dict('
            "type='Pretrained', checkpoint=...), or load_from with a detector's "
            'checkpoint'
        )
    problem += '. If that is meant, write init_cfg=None, and freeze nothing'
    return Finding('random weights', key, problem, cure, 'warning')


def _usual(detector: DetectorConfig) -> tuple[str, ...]:
    kind = str(detector.backbone['type'])
    usual = usual_weights(kind, lambda name: detector.of_backbone(name, None))
    if usual is None:
        return ()
    key = f'{detector.key}.backbone'
    reading = [line(f'{key}.{name}', value) for name, value in usual.arguments.items()]
    return (*lines_to_load(detector, usual.checkpoint, usual.prefix), *reading)
