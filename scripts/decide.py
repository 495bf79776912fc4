"""Door for schedulers: the same as `retinue decide key=value …`."""

import sys

from retinue.cli import main

if __name__ == "__main__":
    sys.exit(main(["decide", *sys.argv[1:]]))
