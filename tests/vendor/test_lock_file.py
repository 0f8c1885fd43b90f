"""One server per SQLite database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vl2v_vendor.host import ServerAlreadyRunning, server_lock


def test_a_second_server_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "vendor.db.lock"
    with server_lock(path), pytest.raises(ServerAlreadyRunning, match=f"process {os.getpid()}"), server_lock(path):
        pass
    with server_lock(path):
        pass


def test_a_killed_server_leaves_no_lock_behind(tmp_path: Path) -> None:
    path = tmp_path / "vendor.db.lock"
    hold_and_die = (
        "import os, sys, pathlib; from vl2v_vendor.host import server_lock;"
        "server_lock(pathlib.Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run([sys.executable, "-c", hold_and_die, str(path)], env=environment, check=False)
    assert died.returncode == -9
    with server_lock(path):
        assert path.read_text() == f"{os.getpid()}\n"
