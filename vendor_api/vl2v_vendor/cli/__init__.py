"""The command line `vl2v-vendor`."""

import sys

from vl2v_vendor.cli.app import run


def main() -> None:
    """Run `vl2v-vendor`."""
    sys.exit(run(sys.argv[1:]))
