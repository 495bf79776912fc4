"""Door for schedulers: the same as `retinue policy key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["policy", *sys.argv[1:]]))
