"""Read one checkpoint in every process of a distributed run.

Started by torchrun with the sources. Prints what each process got, one line each.
"""

import sys
from datetime import timedelta

import torch.distributed as dist

from mmdet_backbones.weights import CheckpointError, read_checkpoint


def tell(line: str) -> None:
    # As one, or the lines of two processes are mixed.
    sys.stdout.write(f'{line}\n')
    sys.stdout.flush()


def main() -> None:
    dist.init_process_group('gloo', timeout=timedelta(seconds=60))
    for source in sys.argv[1:]:
        try:
            tell(f'read {len(read_checkpoint(source).state_dict)}')
        except CheckpointError as error:
            tell(f'refused {str(error).splitlines()[0]}')
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
