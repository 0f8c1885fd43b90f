"""The command line `vl2v-client`: thin commands over the recipes."""

import os
import sys

from vl2v_client.core.errors import INTERRUPTED, INTERRUPTED_EXIT_CODE, ClientError
from vl2v_client.core.extras import missing_package
from vl2v_contract.texts import printable


def main() -> None:
    """Run `vl2v-client`; a missing package, or Ctrl-C while it loads, is a sentence like any other error.

    Where standard output is a pipe whose reader has ended, as `head` does, it ends too and says nothing.
    """
    try:
        from vl2v_client.cli.app import run

        code = run(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still has to write
        sys.exit(ClientError.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vl2v_"):
            raise
        refusal = missing_package(error, "client")
        sys.stderr.write(printable(f"error: {refusal}") + "\n")
        sys.exit(refusal.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(printable(INTERRUPTED) + "\n")
        sys.exit(INTERRUPTED_EXIT_CODE)
