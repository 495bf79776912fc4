"""Door for schedulers: the same as `retinue prepare key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
