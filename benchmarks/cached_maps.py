"""What reading the maps of a frozen backbone saves over computing them.

    python benchmarks/cached_maps.py [--model resnet50] [--size 640] [--images 6]

Times are seconds of the processor for an image, on one thread; files come from the
cache of the operating system, as they do where memory holds a folder.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from mmdet_backbones import TIMMBackbone
from mmdet_backbones.backbones.map_cache import MapCache


def passes(net: TIMMBackbone, images: torch.Tensor) -> tuple[float, list]:
    """Seconds for an image, and the maps of each."""
    start = time.process_time()
    maps = [net(image[None]) for image in images]
    return (time.process_time() - start) / len(images), maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='resnet50')
    parser.add_argument('--strides', type=int, nargs='+', default=(8, 16, 32))
    parser.add_argument('--size', type=int, default=640)
    parser.add_argument('--images', type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = TIMMBackbone(args.model, out_strides=args.strides, frozen_stages='all')
    images = torch.rand(args.images, 3, args.size, args.size)
    passes(net, images[:1])
    plain, expected = passes(net, images)
    with tempfile.TemporaryDirectory() as folder:
        net.map_cache = MapCache(Path(folder), net, limit=10**11)
        first, _ = passes(net, images)
        later, found = passes(net, images)
        sizes = [path.stat().st_size for path in Path(folder).rglob('*.pt')]
    same = all(
        torch.equal(a, b)
        for before, after in zip(expected, found, strict=True)
        for a, b in zip(before, after, strict=True)
    )
    print(f'{args.model}, {args.size} x {args.size}, strides {tuple(args.strides)}')
    print(f'computed {plain:.3f} s, first epoch {first:.3f} s, later {later:.4f} s')
    print(f'{sum(sizes) / len(sizes) / 1e6:.1f} MB an image; equal to the bit: {same}')


if __name__ == '__main__':
    main()
