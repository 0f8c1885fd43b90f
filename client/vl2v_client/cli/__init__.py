"""The command line `vl2v-client`: thin commands over the recipes."""

import sys

from vl2v_client.cli.app import run


def main() -> None:
    """Run `vl2v-client`."""
    sys.exit(run(sys.argv[1:]))
