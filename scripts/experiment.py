"""Door for schedulers: the same as `retinue experiment design|assign|analyse key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["experiment", *sys.argv[1:]]))
