"""An address behind which a liar stands, who passes on what an honest vendor says, but for one path's answers."""

from __future__ import annotations

import gzip
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

from support.loopback import serve_on_loopback

MODELS, KEYS, SUMMARY, STATEMENT, SALE = (
    "/v1/models",
    "/v1/billing/keys",
    "/v1/billing/summary",
    "/v1/billing/statement",
    "/v1/embeddings/",
)
_MEBIBYTE = 1024 * 1024
_DRIP_SECONDS = 0.5

Handler = BaseHTTPRequestHandler
Lie = Callable[[Handler], None]


@contextmanager
def lying_door(url: str, path: str, lie: Lie) -> Iterator[str]:
    """Serve on loopback until the block ends; yields the address.

    Args:
        url: The honest vendor's.
        path: How the paths begin whose answers are lies.
        lie: Writes an answer.
    """

    def respond(handler: Handler, body: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            if handler.path.startswith(path):
                handler.close_connection = True
                lie(handler)
            else:
                _pass_on(handler, url, body)

    with serve_on_loopback(respond) as address:
        yield address


def begin(handler: Handler, status: int = 200, **sent: str) -> None:
    """Write the head of an answer."""
    handler.send_response(status)
    for name, value in {"Connection": "close", **sent}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.flush_headers()


def whole(body: bytes, status: int = 200, **sent: str) -> Lie:
    """A lie that is an answer of usual form."""

    def tell(handler: Handler) -> None:
        begin(handler, status, **{"Content_Type": "application/json", "Content_Length": str(len(body)), **sent})
        handler.wfile.write(body)

    return tell


def endless_body(handler: Handler) -> None:
    begin(handler, Content_Type="application/json")
    for _ in itertools.repeat(None):
        handler.wfile.write(b" " * _MEBIBYTE)


def endless_refusal(handler: Handler) -> None:
    begin(handler, 422, Content_Type="application/problem+json")
    for _ in itertools.repeat(None):
        handler.wfile.write(b" " * _MEBIBYTE)


def endless_head(handler: Handler) -> None:
    handler.send_response(200)
    for number in itertools.count():
        handler.send_header(f"X-{number}", "x" * 1000)
        handler.flush_headers()


def dripping_body(handler: Handler) -> None:
    begin(handler, Content_Length="1000000")
    for _ in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(_DRIP_SECONDS)


def cut_body(handler: Handler) -> None:
    begin(handler, Content_Length="1000000")
    handler.wfile.write(b'{"data":[')


def _problem(detail: str) -> bytes:
    told = {"type": "urn:x", "title": "t", "status": 400, "detail": detail, "code": "invalid_request"}
    return json.dumps({**told, "request_id": "req_1", "retryable": False}).encode()


def _members(count: int) -> bytes:
    return b"{%s}" % b",".join(b'"%d":{}' % number for number in range(count))


LIES: dict[str, Lie] = {
    "endless body": endless_body,
    "endless refusal": endless_refusal,
    "endless head": endless_head,
    "dripping body": dripping_body,
    "cut body": cut_body,
    "compressed body": whole(gzip.compress(bytes(64 * _MEBIBYTE), 1), Content_Encoding="gzip"),
    "deep JSON": whole(b"[" * 2_000_000),
    "many values": whole(b"[" + b"0," * 1_900_000 + b"0]"),
    "many members": whole(_members(300_000)),
    "as many members as are read": whole(_members(60_000)),
    "long number": whole(b'{"data":[{"id":"a","image_size":%s}]}' % (b"9" * 1_000_000)),
    "another type": whole(b'"yes"'),
    "a page": whole(b"<html>welcome</html>", Content_Type="text/html"),
    "a redirect": whole(b"", 307, Location="http://127.0.0.1:9/"),
    "a refusal that steers": whole(_problem("\x1b]0;owned\x07\x1b[2J\r\u202e")),
    "a refusal without end of words": whole(_problem("x" * 3_000_000)),
}


def _pass_on(handler: Handler, url: str, body: bytes) -> None:
    sent = {name: value for name, value in handler.headers.items() if name.lower() not in ("host", "connection")}
    asked = urllib.request.Request(url + handler.path, data=body or None, headers=sent, method=handler.command)
    try:
        answer = urllib.request.urlopen(asked, timeout=60)
    except urllib.error.HTTPError as refusal:
        answer = refusal
    with answer:
        told = answer.read()
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("date", "content-length", "transfer-encoding", "connection"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(told)))
        handler.end_headers()
        handler.wfile.write(told)
