"""Raw HTTP to a vendor in a process of its own: whatever is sent, it answers well or not at all, and stays alive."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from support.fuzz.mutation import mutate_bytes
from support.fuzz.subject import Fault, Outcome
from support.fuzz.vendor_requests import PICTURES
from support.vendor.live_parties import Vendor, free_port

SECRET = b"SECRET"
"""Stands in an input for the customer's key, which is another one in each run."""
_HEAD_SECONDS, _ANSWER_SECONDS, _PATIENCE_SECONDS = 1.0, 2.5, 30.0
_STAY_SECONDS = 0.3
"""Until an answered connection that stays open has nothing more to say."""
_BUDGET = 10**9
_CLEAN = 0.1


class RawHttp:
    """Requests as bytes: heads, lengths, chunks and bodies with something wrong.

    What is not answered in a few seconds, because the vendor waits for more, is left.
    """

    together = 128

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="vl2v-fuzz-")
        settings = {"VL2V_VENDOR_HEAD_SECONDS": str(_HEAD_SECONDS), "VL2V_VENDOR_MAX_ITEMS": "8"}
        self._vendor = Vendor(Path(self._home.name) / "vendor", free_port(), settings)
        self._vendor.start()
        self._secret = self._vendor.create_key("rich", _BUDGET).encode()
        self._templates = [_whole(*template) for template in _TEMPLATES]
        self._told = self._unheard = 0

    def make(self, dice: random.Random) -> bytes:
        template = dice.choice(self._templates)
        if dice.random() < _CLEAN:
            return template
        changed = template
        if dice.random() < 0.6:
            lines = changed.split(b"\r\n")
            for _ in range(dice.randint(1, 3)):
                place = dice.randrange(len(lines))
                lines[place : place + dice.choice((0, 1))] = [dice.choice(_LINES)]
            changed = dice.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")).join(lines)
        return mutate_bytes(changed, dice, others=self._templates) if dice.random() < 0.6 else changed

    def try_all(self, cases: Sequence[bytes]) -> list[Outcome]:
        return asyncio.run(self._try_all(cases))

    def finish(self) -> list[Fault]:
        """Hold the bill against what was answered; an answer that nobody waited for may have been billed too."""
        faults = []
        headers = {"Authorization": f"Bearer {self._secret.decode()}"}
        summary = httpx.get(f"{self._vendor.url}/v1/billing/summary", headers=headers, timeout=60)
        used = int(summary.json()["used_units"])
        if not self._told <= used <= self._told + 8 * self._unheard:
            faults.append(Fault(f"{used} units billed, {self._told} told of, {self._unheard} answers not waited for"))
        if self._vendor.command("ledger", "verify").code:
            faults.append(Fault("`ledger verify` finds something"))
        if "Traceback" in self._vendor.log.read_text():
            faults.append(Fault("a traceback in the vendor's log"))
        self._vendor.stop()
        self._home.cleanup()
        return faults

    async def _try_all(self, cases: Sequence[bytes]) -> list[Outcome]:
        outcomes = await asyncio.gather(*(self._try(case) for case in cases))
        alive = await self._answer_to(
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", _PATIENCE_SECONDS
        )
        if not alive.startswith(b"HTTP/1.1 200 "):
            return [Fault(f"/healthz after it: {alive[:100]!r}")] * len(cases)
        return outcomes

    async def _try(self, case: bytes) -> Outcome:
        try:
            answer = await self._answer_to(case.replace(SECRET, self._secret), _ANSWER_SECONDS)
        except OSError as error:
            return f"{type(error).__name__}"
        try:
            return self._hold(answer, is_clean=case in self._templates)
        except Fault as fault:
            return fault

    async def _answer_to(self, sent: bytes, patience_seconds: float) -> bytes:
        """Send, and read what comes until the connection ends, or stays open and says nothing more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._vendor.port)
        answer, patience = b"", patience_seconds
        try:
            writer.write(sent)
            while piece := await asyncio.wait_for(reader.read(65_536), timeout=patience):
                answer += piece
                patience = _STAY_SECONDS
        except TimeoutError:
            self._unheard += not answer
        finally:
            writer.transport.abort()
        return answer

    def _hold(self, answer: bytes, *, is_clean: bool) -> str:
        """Hold the answers, of which there may be several, against what every answer must be."""
        if not answer:
            if is_clean:
                raise Fault("a whole request was not answered")
            return "no answer"
        statuses = []
        while answer:
            head, end, rest = answer.partition(b"\r\n\r\n")
            if not (head.startswith(b"HTTP/1.1 ") and end):
                raise Fault(f"an answer that begins {answer[:60]!r}")
            status, length = head[9:12].decode(), _length(head)
            if status >= "500":
                raise Fault(f"status {status}: {rest[:200]!r}")
            body, answer = rest[:length], rest[length:]
            if status == "200" and b'"billed_units"' in body:
                self._told += int(json.loads(body)["usage"]["billed_units"])
            statuses.append(status)
        return " ".join(statuses[:2])


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _whole(method: str, path: str, kind: str, body: bytes) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: vendor",
        f"Authorization: Bearer {SECRET.decode()}",
        "Connection: close",
    ]
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


_FORM = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n%b\r\n--b--\r\n' % PICTURES[0]
_TEMPLATES = (
    ("GET", "/healthz", "", b""),
    ("GET", "/v1/models", "", b""),
    ("GET", "/v1/billing/summary", "", b""),
    ("GET", "/v1/billing/statement?after_seq=0&limit=5", "", b""),
    ("GET", "/login", "", b""),
    ("POST", "/login", "application/x-www-form-urlencoded", b"key=vl2v_none&token=x"),
    ("POST", "/v1/embeddings/texts", "application/json", b'{"items":[{"text":"a dog"}]}'),
    ("POST", "/v1/embeddings/images", "multipart/form-data; boundary=b", _FORM),
    ("POST", "/v1/embeddings", "application/json", b'{"model":"hash-64","input":["a dog"]}'),
    ("POST", "/v1/embeddings/replay", "application/json", b'{"item_keys":["%b"]}' % (b"0" * 64)),
)
_LINES = (
    b"", b"0", b"5;a=b", b"fffffffffffffffff", b"No colon", b"A : b", b": b", b" folded", b"\tfolded", b"Host:",
    b"Host: other", b"A: \xff\xfe", b"A: \x00", b"A: " + b"x" * 20_000, b"X-Request-Id: \x1b[2J", b"Content-Type:",
    *(b"Content-Length: " + length for length in (b"0", b"5", b"-1", b"+5", b"5, 5", b"9" * 20, b"0x5", b"")),
    *(b"Transfer-Encoding: " + coding for coding in (b"chunked", b"gzip, chunked", b"identity", b"chunked, chunked")),
    b"Expect: 100-continue", b"Upgrade: h2c", b"Connection: upgrade", b"Connection: keep-alive, close",
    *(target + b" HTTP/1.1" for target in (
        b"GET /healthz", b"HEAD /login", b"GET http://other/healthz", b"GET //healthz", b"GET /%00%ff%2e%2e/",
        b"OPTIONS *", b"CONNECT a:1", b"get /healthz", b"GET /docs?\xff", b"TRACE /healthz",
    )),
    b"GET /healthz HTTP/1.0", b"GET /healthz HTTP/9.9", b"GET /healthz", b"Authorization: Basic eDp5",
    b"Authorization: Bearer", b"Content-Type: application/json; charset=utf-16", b"Content-Encoding: gzip",
    b"Accept: application/octet-stream;q=\xc2\xb2", b"Idempotency-Key: " + b"k" * 300, b"Range: bytes=0-",
    b"Cookie: vl2v=..; a=b; a", b"X-Forwarded-For: 1.2.3.4",
)  # fmt: skip
