"""Door for schedulers: the same as `retinue report key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
