"""Door for schedulers: the same as `retinue run key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
