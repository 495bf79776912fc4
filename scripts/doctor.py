"""Door for schedulers: the same as `retinue doctor key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
