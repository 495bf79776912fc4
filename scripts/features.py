"""Door for schedulers: the same as `retinue features key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["features", *sys.argv[1:]]))
