"""Door for schedulers, torchrun and Slurm: the same as `retinue pretrain key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
