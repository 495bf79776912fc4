"""Door for schedulers: the same as `retinue export key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
