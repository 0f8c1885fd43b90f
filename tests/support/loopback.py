"""An HTTP/1.1 server on loopback, for what stands in for the vendor or between it and the client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serve_on_loopback(respond: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    """Serve until the block ends, with one thread for each connection; yields the URL.

    Args:
        respond: Writes the answer to a request, whose body is its second argument.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _respond(self) -> None:
            respond(self, self.rfile.read(int(self.headers.get("content-length", 0))))

        do_GET = do_POST = _respond

        def log_message(self, *values: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
