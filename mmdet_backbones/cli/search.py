"""Find the backbone for a data set: short trainings in a budget.

Candidates come from the catalog, by name, licence, size and the time that the detector
takes with them here. Trainings are real ones; the worse ones are ended early. The same
command goes on with a search that was ended, and trains nothing again.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .output import console, print_json

if TYPE_CHECKING:
    from ..search.options import SearchOptions

EXAMPLES = (
    'mmdet-backbones search mmdet::yolox/yolox_tiny_8xb8-300e_coco.py --data trees '
    "--backbones 'timm/*lite*' timm/resnet18 --latency 20ms --hours 2 -o found",
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('base', help='config of a detector: a path, or mmdet::x/y.py')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='FOLDER')
    parser.add_argument('--data', required=True, metavar='DIR',
                        help='data set, as swap takes it')  # fmt: skip
    parser.add_argument('--resume', action='store_true',
                        help='only go on with the search in FOLDER')  # fmt: skip
    parser.add_argument('--guess', action='store_true',
                        help='train nothing: guess by how well pretrained features '
                        'tell the objects from background')  # fmt: skip
    flag = parser.add_argument_group('candidates').add_argument
    flag('--backbones', nargs='+', required=True, metavar='NAME',
         help='names or globs of the subcommand list')  # fmt: skip
    flag('--latency', metavar='20ms', help='of the detector for an image, at most')
    flag('--latency-of', choices=['torch', 'onnx', 'openvino'], default='torch',
         help='the detector in torch, or as export writes it')  # fmt: skip
    flag('--device', choices=['cpu', 'cuda'], default='cpu',
         help='where the latency is measured')  # fmt: skip
    flag('--rounds', type=int, default=10, help='how often it is measured')
    flag('--licence', metavar='NAME', help='of the weights, as list takes it')
    flag('--max-params', metavar='30M', help='without any head')
    flag('--sizes', nargs='+', type=int, default=(), metavar='S',
         help='sides of images; default: those of the base')  # fmt: skip
    flag('--checkpoint', nargs='+', default=[], metavar='NAME=FILE', dest='checkpoints',
         help='weights instead of the usual ones')  # fmt: skip
    flag('--no-weights', action='store_true', help='start from random values')
    flag = parser.add_argument_group('trainings').add_argument
    flag('--hours', type=float, default=1.0, help='of all runs together (%(default)g)')
    flag('--trials', type=int, metavar='N', help='default: two for each candidate')
    flag('--epochs', type=int, default=12, metavar='N', help='(%(default)s)')
    flag('--batch', type=int, metavar='N', help='images per iteration')
    flag('--seed', type=int, default=0, metavar='N')
    flag = parser.add_argument_group('machines').add_argument
    flag('--ray', metavar='ADDRESS', help='of a cluster that sees the same files; '
         'default: this machine')  # fmt: skip
    flag('--storage', metavar='URL', help='where machines that share no disk keep the '
         'trials: s3://bucket/folder, or another address of fsspec')  # fmt: skip
    flag('--cpus-per-trial', type=int, default=1, metavar='N')


def run(args: Namespace) -> None:
    """Search, and print the table or JSON."""
    from ..catalog.listing import parse_count
    from ..search.display import Display, table_of
    from ..search.guess import guesses_in
    from ..search.options import SearchOptions, parse_checkpoints, parse_latency
    from ..search.report import NOTHING_FOUND, next_command
    from ..search.searching import search

    names = ('base', 'data', 'out', 'device', 'rounds', 'licence', 'no_weights',
             'hours', 'trials', 'epochs', 'batch', 'seed', 'ray',
             'storage', 'cpus_per_trial')  # fmt: skip
    options = SearchOptions(
        **{name: getattr(args, name) for name in names},
        backbones=tuple(args.backbones),
        sizes=tuple(args.sizes),
        latency=parse_latency(args.latency) if args.latency else None,
        max_params=parse_count(args.max_params) if args.max_params else None,
        checkpoints=parse_checkpoints(args.checkpoints),
    )
    if args.guess:
        _guess(options, args)
        return
    state = search(options, Display(), args.resume, guesses_in(options.out))
    following = next_command(options) if state.winner else None
    if args.json:
        print_json(dict(state.to_dict(), next=following))
        return
    console().print(table_of(state))
    print(options.out / 'search.md')
    if not any(record.ap for record in state.trials.values()):
        print(NOTHING_FOUND, file=sys.stderr)
    if following:
        print(following)


def _guess(options: SearchOptions, args: Namespace) -> None:
    from ..search.display import Display
    from ..search.guess import GUESSES, guess_table
    from ..search.searching import guess_first

    found = guess_first(options, Display(), args.resume)
    if args.json:
        print_json(dict(guesses=[one.to_dict() for one in found]))
        return
    console().print(guess_table(found))
    print(options.out / GUESSES)
