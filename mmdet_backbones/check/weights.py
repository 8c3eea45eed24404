"""Pretrained weights against the backbone, and what stays random or still."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from ..backbones.contract import Backbone
from ..catalog.entries import usual_weights
from ..detector_config.detector import DetectorConfig, trainable
from ..detector_config.tree import type_name
from ..detector_config.weights import Pretrained, pretrained_of
from ..engine.recipes import learns_little_alone
from ..errors import CheckpointError, PretrainedWeightsError, UserError
from ..levels import ALL
from ..shapes.build import idle_parameters
from ..shapes.structure import largest_parts
from ..weights.loading.frozen import FIXED_NORMS
from ..weights.loading.init_cfg import Terms
from ..weights.loading.loader import examine_checkpoint
from ..weights.names.kinds import kind_of, other_kind_by_file
from ..weights.reading.download import by_hand, cache_path, torch_path
from ..weights.reading.reader import Checkpoint, read_checkpoint
from ..weights.reading.sources import OWN_SCHEMES, locate_checkpoint
from .findings import Cure, Finding, instead, line, our_class
from .host_weights import check_host_file, never_trained
from .training import check_preprocessing


def check_weights(detector: DetectorConfig, ask: bool = False) -> Iterator[Finding]:
    """Report weights that cannot be had or do not fit.

    Args:
        detector: The config.
        ask: Whether servers are asked for files that are not on this machine. Nothing
            is downloaded.
    """
    weights = pretrained_of(detector.backbone)
    resumes = any(seen.start.resumes for seen in detector.starts)
    if weights is None or (resumes and isinstance(detector.net, Backbone)):
        # A training that goes on reads no other weights into a backbone of ours.
        return
    key = f'{detector.key}.backbone.{weights.key}'
    net = detector.net
    own = weights.checkpoint.startswith(OWN_SCHEMES)
    if own and not isinstance(net, Backbone):
        yield from _unknown_to_host(detector, weights, key)
        return
    try:
        found = locate_checkpoint(weights.checkpoint, ask=ask, place=_place(detector))
        if not isinstance(found, Path):
            yield from _by_name(net, weights, key)
        elif isinstance(net, Backbone):
            yield from _fit(net, weights, key)
        else:
            yield from check_host_file(detector, weights, found, key)
    except CheckpointError as error:
        yield Finding('weights', key, str(error))


def where_to_put_weights(config: Config) -> str | None:
    """Say which file a training will download, and where it may be put instead.

    Args:
        config: Of a detector.

    Returns:
        A sentence; None if the file is here, or if a check has more to say of it.
    """
    detector = DetectorConfig(config)
    try:
        weights = pretrained_of(detector.backbone)
        if weights is None:
            return None
        place = _place(detector)
        url = locate_checkpoint(weights.checkpoint, place=place)
    except (CheckpointError, UserError):
        return None
    if isinstance(url, Path):
        return None
    return (
        f"'{url}' is not on this machine: training downloads it. {by_hand(place(url))}"
    )


def _place(detector: DetectorConfig) -> Callable[[str], Path]:
    """Where the loader of the class that is configured looks for downloads."""
    return cache_path if isinstance(detector.net, Backbone) else torch_path


def _unknown_to_host(
    detector: DetectorConfig, weights: Pretrained, key: str
) -> Iterator[Finding]:
    if detector.backbone.get('pretrained') is True:
        # A class around timm, which looks for it in a cache of its own.
        return
    lines, remove = our_class(detector)
    yield Finding(
        'weights',
        key,
        f'mmengine, which loads the weights of {type_name(detector.backbone)}, takes '
        f'{weights.checkpoint} for the path of a file: it knows no such addresses',
        lines,
        remove=remove,
    )


def _fit(net: Backbone, weights: Pretrained, key: str) -> Iterator[Finding]:
    """Lay the file over the net as a training would."""
    source = read_checkpoint(weights.checkpoint, finite=False)
    try:
        examine_checkpoint(net, source, weights.prefix, weights.terms)
    except PretrainedWeightsError as error:
        fits = weights.prefix is not None and _takes(net, source, weights.terms)
        cure = (line(f'{key}.prefix', None),) if fits else ()
        yield Finding('weights', key, str(error), cure)


def _takes(net: Backbone, source: Checkpoint, terms: Terms) -> bool:
    """Whether a file fits a net whatever the prefix of its names is."""
    try:
        examine_checkpoint(net, source, None, terms)
    except PretrainedWeightsError:
        return False
    return True


def _by_name(net: nn.Module, weights: Pretrained, key: str) -> Iterator[Finding]:
    """Without the file, its name may still say that it is of another net."""
    here = kind_of(net.state_dict())
    there = other_kind_by_file(here, weights.checkpoint)
    if there is None:
        return
    cure: tuple[str, ...] = ()
    full_width = getattr(net, 'widen_factor', 1.0) == 1.0
    mixed_up = (here, there) == ('ShuffleNetV2', 'ShuffleNetV1')
    if mixed_up and full_width and weights.key.startswith('init_cfg'):
        cure = (line(f'{key}.checkpoint', _SHUFFLENET),)
    yield Finding(
        'weights',
        key,
        f'{weights.checkpoint} is of a {there} by its name, the net is a {here}: '
        'nothing of it would be loaded',
        cure,
    )


_SHUFFLENET = (
    'https://download.openmmlab.com/mmclassification/v0/shufflenet_v2/'
    'shufflenet_v2_batch1024_imagenet_20200812-5bf4721e.pth'
)


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
    if still and (frozen == ALL or (isinstance(frozen, int) and frozen >= 0)):
        wrong = True
        yield Finding(
            'frozen and random',
            f'{key}.frozen_stages',
            f'frozen_stages={frozen!r} keeps '
            f'{sum(tensors[n].numel() for n in still):,} parameters at random values: '
            f'{source}',
            (line(f'{key}.frozen_stages', -1),),
        )
    elif still and getattr(net, 'lora', None) is not None:
        wrong = True
        yield Finding(
            'frozen and random',
            f'{key}.lora',
            'lora trains adapters alone and keeps '
            f'{sum(tensors[n].numel() for n in still):,} parameters at random values: '
            f'{source}',
            (line(f'{key}.lora', None),),
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
    if usual is None or not _is_of(detector, usual.config):
        return ()
    key = f'{detector.key}.backbone'
    reading = [line(f'{key}.{name}', value) for name, value in usual.arguments.items()]
    loaded = DetectorConfig(deepcopy(detector.config))
    init_cfg = dict(type='Pretrained', checkpoint=usual.checkpoint)
    loaded.model['backbone']['init_cfg'] = init_cfg
    # The images have to be those that the weights know.
    images = [text for told in check_preprocessing(loaded) for text in told.cure]
    lines = lines_to_load(detector, usual.checkpoint, usual.prefix)
    return (*lines, *reading, *images)


def _is_of(detector: DetectorConfig, published: Mapping[str, Any]) -> bool:
    """Whether a backbone is the net that weights were published for."""
    if not published:
        return True
    try:
        there = detector.build(published).state_dict()
    except UserError:
        return False
    # Deformable convolutions start without offsets.
    here = {n: t for n, t in detector.net.state_dict().items() if 'offset' not in n}
    return all(n in there and t.shape == there[n].shape for n, t in here.items())


def lines_to_load(
    detector: DetectorConfig, checkpoint: str, prefix: str | None = None
) -> tuple[str, ...]:
    """Lines that load weights into the backbone, whatever stands there now.

    Args:
        detector: The config.
        checkpoint: Of the backbone.
        prefix: Of its names, or None.
    """
    backbone = detector.backbone
    key = f'{detector.key}.backbone'
    given = backbone.get('init_cfg')
    wanted: dict[str, Any] = dict(type='Pretrained', checkpoint=checkpoint)
    old = given if isinstance(given, dict) else {}
    if prefix or old.get('prefix'):
        wanted['prefix'] = prefix or None
    if old:
        lines = [line(f'{key}.init_cfg.{name}', v) for name, v in wanted.items()]
    else:
        lines = [instead(detector, f'{key}.init_cfg', wanted)]
    if backbone.get('pretrained'):
        flag = False if backbone['pretrained'] is True else None
        lines.append(line(f'{key}.pretrained', flag))
    return tuple(lines)


def check_gradients(detector: DetectorConfig) -> Iterator[Finding]:
    """Report parameters of the backbone that none of its outputs depends on."""
    net = detector.net
    if detector.config.get('find_unused_parameters', False):
        return
    idle = idle_parameters(net, detector.size, detector.in_channels)
    if not idle:
        return
    parts = ', '.join(largest_parts(net, idle)[:4])
    name = type_name(detector.backbone)
    lines, remove = without_idle(detector, net)
    yield Finding(
        'no gradient',
        f'{detector.key}.backbone',
        f'{len(idle)} parameters of {name} get no gradient ({parts}): training on '
        'several GPUs stops with "Expected to have finished reduction"',
        lines,
        remove=remove,
    )


def without_idle(detector: DetectorConfig, net: nn.Module) -> Cure:
    """What to do about parameters of a net that none of its outputs depends on.

    Args:
        detector: The config.
        net: Its backbone, as it is or as it shall be, on the meta device.

    Returns:
        Our class in its place, or to have DistributedDataParallel look for them.
    """
    allowed = detector.config.get('find_unused_parameters', False)
    if allowed or not idle_parameters(net, detector.size, detector.in_channels):
        return Cure()
    cure = our_class(detector)
    return cure if cure.lines else Cure((line('find_unused_parameters', True),))
