"""`vl2v_client` in a process of `torchrun`; all but the first may open neither socket nor SQLite."""

import os

from support.client.sweep_bench import forbid_sockets_and_sqlite
from vl2v_client.cli import main

if __name__ == "__main__":
    if os.environ["RANK"] != "0":
        forbid_sockets_and_sqlite()
    main()
