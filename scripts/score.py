"""Door for schedulers: the same as `retinue forecast checkpoint=… key=value …`, one process per RANK."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["forecast", *sys.argv[1:]]))
