"""Door for schedulers: the same as `retinue segment key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["segment", *sys.argv[1:]]))
