"""`python -m romana_ovs`: the same as the command `romana-ovs`."""

import sys

from romana_ovs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
