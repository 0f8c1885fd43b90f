"""The command line `vl2v-client`: thin commands over the recipes."""

import sys

from vl2v_client.core.errors import INTERRUPTED, INTERRUPTED_EXIT_CODE
from vl2v_client.core.extras import missing_package
from vl2v_contract.texts import printable


def main() -> None:
    """Run `vl2v-client`; a missing package, or Ctrl-C while it loads, is a sentence like any other error."""
    try:
        from vl2v_client.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vl2v_"):
            raise
        refusal = missing_package(error, "client")
        sys.stderr.write(printable(f"error: {refusal}") + "\n")
        sys.exit(refusal.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(printable(INTERRUPTED) + "\n")
        sys.exit(INTERRUPTED_EXIT_CODE)
