"""The servers that `vendor.py` holds side by side, each in a process of its own, and how each is asked."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from http_target import Target, multipart
from local_vendor import free_port, local_vendor
from random_models import RandomModel, save_hugging_face_twin

from vl2v_contract.wire.headers import OCTET_STREAM

RAW, NAIVE, OURS, INFINITY = "RAW", "NAIVE", "OURS", "INFINITY"

IMAGES_PATH, TEXTS_PATH = "/v1/embeddings/images", "/v1/embeddings/texts"

_START_SECONDS = 180
_BUDGET_UNITS = 2**40


@dataclass(frozen=True, slots=True)
class Arm:
    """A server and the request by which it embeds some images.

    Attributes:
        name: as it stands in the table.
        target: where it is.
        ask_for: the bytes of a request for so many images.
    """

    name: str
    target: Target
    ask_for: Callable[[Sequence[bytes]], bytes]


@contextmanager
def ours(home: Path, model: RandomModel, device: str) -> Iterator[Arm]:
    """The vendor as its command starts it: authentication, billing with full durability, metrics."""
    options = ["--model-config", str(model.config_file), "--pretrained", str(model.checkpoint_file)]
    options += ["--device", device, "--log-level", "warning"]
    with local_vendor(home, account="bench", budget=_BUDGET_UNITS, options=options) as environment:
        bearer = {"Authorization": f"Bearer {environment['VL2V_API_KEY']}"}
        with Target(environment["VL2V_VENDOR_URL"], bearer) as target:

            def ask_for(photos: Sequence[bytes]) -> bytes:
                return target.request(IMAGES_PATH, *multipart(photos), {"Accept": OCTET_STREAM})

            yield Arm(OURS, target, ask_for)


@contextmanager
def naive(model: RandomModel, log: Path) -> Iterator[Arm]:
    """One image a call, under a lock."""
    port = free_port()
    script = Path(__file__).with_name("naive_server.py")
    words = [sys.executable, str(script), str(model.config_file), str(model.checkpoint_file), "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with _served(words, f"{url}/readyz", log), Target(url) as target:

        def ask_for(photos: Sequence[bytes]) -> bytes:
            assert len(photos) == 1
            return target.request("/embed", json.dumps({"image": base64.b64encode(photos[0]).decode()}).encode())

        yield Arm(NAIVE, target, ask_for)


@contextmanager
def infinity(python: Path, folder: Path, model: RandomModel, photo: bytes) -> Iterator[Arm]:
    """infinity-emb with the same architecture and its own defaults.

    Args:
        python: of an environment with `infinity-emb[torch,vision,server]`.
        folder: for its model and its log.
        model: whose shape it gets.
        photo: a JPEG file that it must be able to embed.

    Raises:
        RuntimeError: it cannot be started or cannot embed an image; says why.
    """
    files = save_hugging_face_twin(model, folder / "infinity-model", python)
    port = free_port()
    words = [str(python.parent / "infinity_emb"), "v2", "--model-id", str(files), "--served-model-name", "clip"]
    words += ["--engine", "torch", "--device", "cpu", "--port", str(port), "--host", "127.0.0.1"]
    words += ["--batch-size", "32", "--log-level", "warning"]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    url = f"http://127.0.0.1:{port}"
    with _served(words, f"{url}/health", folder / "infinity.log", os.environ | quiet), Target(url) as target:
        _try_once(f"{url}/embeddings", _infinity_body([photo]))
        yield Arm(INFINITY, target, lambda photos: target.request("/embeddings", _infinity_body(photos)))


def _infinity_body(photos: Sequence[bytes]) -> bytes:
    uris = ["data:image/jpeg;base64," + base64.b64encode(photo).decode() for photo in photos]
    return json.dumps({"model": "clip", "input": uris, "modality": "image", "encoding_format": "base64"}).encode()


def _try_once(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_START_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"answers {error.code}: {error.read()[:200].decode(errors='replace')}") from error


@contextmanager
def _served(words: list[str], probe: str, log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run a server until the block ends; enter it when `probe` answers 200."""
    with log.open("wb") as sink:
        process = subprocess.Popen(words, stdout=sink, stderr=sink, env=environment)
    try:
        _wait_for(probe, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(probe: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise RuntimeError(f"ended with {process.returncode}: {last[:200]}")
        try:
            with urllib.request.urlopen(probe, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"did not answer within {_START_SECONDS} s; see {log}")
