"""Read one file again and again with a few of its bytes changed.

Started in a process of its own, as a crash of torch's readers would end it.
"""

import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mmdet_backbones.weights import CheckpointError, read_checkpoint

TIMES = 200


def write(kind: str, path: Path) -> None:
    weights = {f'layer{n}.weight': torch.rand(4, 4) for n in range(4)}
    if kind == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == 'zip')


def main() -> None:
    path = Path(sys.argv[1]) / 'net'
    generator = random.Random(0)
    for kind in ('zip', 'old', 'safetensors'):
        write(kind, path)
        content, refused = path.read_bytes(), 0
        for _ in range(TIMES):
            changed = bytearray(content)
            for _ in range(generator.randint(1, 8)):
                changed[generator.randrange(len(changed))] = generator.randrange(256)
            path.write_bytes(changed)
            try:
                read_checkpoint(str(path), finite=False)
            except CheckpointError:
                refused += 1
        print(kind, refused)


if __name__ == '__main__':
    main()
