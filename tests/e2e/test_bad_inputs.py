"""Every bad input gets a message that names the item and the remedy; no traceback; nothing is billed for it."""

from __future__ import annotations

import base64
import io
import json
import resource
import shutil
import struct
import subprocess
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.vendor.live_parties import BIN, Client, Vendor, free_port

BUY = ("--target-domain", "sketch", "--views", "1")


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 13,000 x 13,000 pixels in a few kilobytes: one bit a pixel, never decoded here."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + 13_000 // 8)) for _ in range(13_000)) + rows.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def picture(mode: str, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 7 if mode in ("L", "I;16") else None or 0).save(buffer, kind)
    return buffer.getvalue()


def animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("P", (20, 20), shade) for shade in (0, 100, 200)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


BROKEN = {"truncated JPEG": jpeg()[:-400], "text file": b"I am no image", "empty file": b"", "169 megapixels": bomb()}
GOOD = {
    "1x1": picture("RGB", (1, 1)),
    "CMYK": picture("CMYK", kind="JPEG"),
    "16-bit grey": picture("I;16"),
    "animated GIF": animation(),
    "transparent": picture("RGBA"),
}


@pytest.fixture
def data(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def expect(done: Any, code: int, *words: str) -> None:
    said = " ".join(done.err.split())
    assert done.code == code, said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_stops_the_client_before_anything_is_spent(
    shared_vendor: Vendor, new_client: Callable[..., Client], data: Path, content: bytes
) -> None:
    for place in sorted((data / "photo" / "fish").iterdir()):  # all, so that the hold-out cannot hide it
        place.write_bytes(content)
    client = new_client(shared_vendor)
    expect(client.run("buy", "--data", data, *BUY, "--yes"), 3, "photo/fish/", "or remove it")
    assert client.used_units() == 0


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_fails_alone_at_the_vendor(
    shared_vendor: Vendor, new_client: Callable[..., Client], content: bytes
) -> None:
    client = new_client(shared_vendor)
    answer = ask_images(client, [jpeg(), content])
    assert [item["status"] for item in answer["data"]] == ["billed", "failed"]
    assert answer["data"][1]["error"]["detail"]
    assert client.used_units() == answer["usage"]["billed_units"] == 1


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_an_unusual_image_is_sold_under_the_declared_policy(
    shared_vendor: Vendor, new_client: Callable[..., Client], data: Path, content: bytes
) -> None:
    client = new_client(shared_vendor)
    assert ask_images(client, [content])["usage"]["billed_units"] == 1
    next(iter((data / "photo" / "fish").iterdir())).write_bytes(content)
    assert client.run("plan", "--data", data, *BUY).code == 0


def test_an_empty_class_folder(shared_vendor: Vendor, new_client: Callable[..., Client], data: Path) -> None:
    for place in (data / "photo" / "fish").iterdir():
        place.unlink()
    expect(new_client(shared_vendor).run("plan", "--data", data, *BUY), 3, "photo/fish", "add some or remove")


def test_one_domain_only(shared_vendor: Vendor, new_client: Callable[..., Client], data: Path) -> None:
    for domain in ("photo", "cartoon"):
        shutil.rmtree(data / domain)
    expect(new_client(shared_vendor).run("plan", "--data", data, *BUY), 3, "one domain only", "leave the target out")


def test_an_unknown_target(shared_vendor: Vendor, new_client: Callable[..., Client], data: Path) -> None:
    done = new_client(shared_vendor).run("plan", "--data", data, "--target-domain", "sketches")
    expect(done, 3, "'sketches'", "cartoon, photo, sketch")


def test_a_wrong_key(shared_vendor: Vendor, data: Path, tmp_path: Path) -> None:
    client = Client(shared_vendor, tmp_path / "cache.db", "vl2v_wrong")
    expect(client.run("buy", "--data", data, *BUY, "--yes"), 5, "API key")


def test_a_revoked_key(own_vendor: Callable[..., Vendor], new_client: Callable[..., Client], data: Path) -> None:
    vendor = own_vendor()
    client = new_client(vendor)
    key_id = json.loads(vendor.command("keys", "list", "--json").out)[0]["id"]
    assert vendor.command("keys", "revoke", key_id).code == 0
    expect(client.run("buy", "--data", data, *BUY, "--yes"), 5, "revoked", "ask the vendor for a new one")


def test_a_vendor_that_is_down(data: Path, tmp_path: Path) -> None:
    nobody = Vendor(tmp_path / "nobody", free_port())
    client = Client(nobody, tmp_path / "cache.db", "vl2v_any")
    expect(client.run("plan", "--data", data, *BUY), 4, nobody.url, "running")


def test_another_model_behind_the_same_url(
    own_vendor: Callable[..., Vendor], new_client: Callable[..., Client], data: Path
) -> None:
    vendor = own_vendor()
    client = new_client(vendor)
    assert client.run("buy", "--data", data, *BUY, "--yes").code == 0
    paid = client.used_units()
    vendor.stop()
    vendor.settings = {"VL2V_VENDOR_HASH_EMBEDDING_DIM": "96"}
    vendor.start()
    plan = client.run("plan", "--data", data, *BUY, "--json")
    assert json.loads(plan.out)["new_queries"] == paid
    assert "another model than the cached one" in plan.err
    assert client.used_units() == paid


def test_a_text_over_the_context_length(shared_vendor: Vendor, new_client: Callable[..., Client], data: Path) -> None:
    for domain in ("photo", "cartoon", "sketch"):
        (data / domain / "fish").rename(data / domain / "_".join(["ox"] * 84))
    client = new_client(shared_vendor)
    expect(client.run("buy", "--data", data, *BUY, "--yes"), 3, "text 'a photo of a ox", "tokens", "mend or remove")
    assert client.used_units() == 40 + 3


def test_duplicate_files_are_bought_once(shared_vendor: Vendor, new_client: Callable[..., Client], data: Path) -> None:
    files = sorted((data / "photo" / "fish").iterdir())
    for place in files[1:]:
        place.write_bytes(files[0].read_bytes())
    client = new_client(shared_vendor)
    plan = json.loads(client.run("plan", "--data", data, *BUY, "--json").out)
    assert plan["new_queries"] < plan["views"] + plan["texts"]
    assert client.run("buy", "--data", data, *BUY, "--yes").code == 0
    assert client.used_units() == plan["new_queries"]


def test_an_unreadable_file(shared_vendor: Vendor, new_client: Callable[..., Client], data: Path) -> None:
    for place in sorted((data / "photo" / "fish").iterdir()):
        place.unlink()
        place.symlink_to("gone.png")
    expect(new_client(shared_vendor).run("plan", "--data", data, *BUY), 3, "photo/fish/", "check")


def test_a_full_disk(shared_vendor: Vendor, new_client: Callable[..., Client], data: Path) -> None:
    client = new_client(shared_vendor)
    done = subprocess.run(
        [str(BIN / "vl2v-client"), "buy", "--data", str(data), *BUY, "--yes"],
        env=client.environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000)),
        check=False,
    )
    assert done.returncode == 8, done.stderr
    assert str(client.cache) in "".join(done.stderr.split("\n"))
    assert "Traceback" not in done.stderr
    again = client.run("buy", "--data", data, *BUY, "--yes")
    assert again.code == 0, again.err
    assert client.used_units() == 40 + 4
    assert client.run("audit").code == 0


def test_a_port_in_use(shared_vendor: Vendor, tmp_path: Path) -> None:
    second = Vendor(tmp_path / "second", shared_vendor.port)
    expect(second.command("serve", "--port", str(second.port)), 1, str(second.port), "--port")


def test_a_budget_of_100_with_150_misses(
    shared_vendor: Vendor, new_client: Callable[..., Client], data: Path, tmp_path: Path
) -> None:
    client = new_client(shared_vendor, 100)
    wanted = ("--data", data, "--target-domain", "sketch", "--views", "4")
    refused = client.run("plan", *wanted, "--json")
    expect(refused, 6, "100 left", "top-up of 64")
    plan = json.loads(refused.out)
    assert plan["new_queries"] == 164 > plan["remaining_units"] == 100
    expect(client.run("buy", *wanted, "--yes"), 6, "100 left", "--partial")
    assert client.used_units() == 0

    expect(client.run("buy", *wanted, "--yes", "--partial"), 6, "top-up")
    assert client.used_units() == 100
    assert json.loads(client.run("cache", "stats", "--json").out)["embeddings"] == 100
    assert json.loads(client.run("plan", *wanted, "--json").out)["new_queries"] == 64
    assert client.run("audit").code == 0

    quick = ("--align-steps", "20", "--distill-steps", "20", "--evaluate-every", "10", "--batch-size", "4")
    trained = client.run("distill", *wanted, "--out", tmp_path / "run", "--yes", "--partial", *quick)
    assert trained.code == 0, trained.err
    assert client.used_units() == 100
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["purchase"]["images"] + report["purchase"]["texts"] == 100


def test_a_declined_purchase_leaves_the_folder_free(
    shared_vendor: Vendor, new_client: Callable[..., Client], data: Path, tmp_path: Path
) -> None:
    client = new_client(shared_vendor)
    distill = ("distill", "--data", data, "--target-domain", "sketch", "--out", tmp_path / "run", "--yes")
    expect(client.run(*distill, "--views", "4", "--max-queries", "50"), 6, "--max-queries")
    expect(client.run(*distill, "--views", "2", "--max-queries", "50"), 6, "--max-queries")
    assert client.used_units() == 0


def test_a_device_that_is_not_there_is_told_before_anything_is_spent(
    shared_vendor: Vendor, new_client: Callable[..., Client], data: Path, tmp_path: Path
) -> None:
    client = new_client(shared_vendor)
    done = client.run("distill", "--data", data, "--out", tmp_path / "run", "--yes", "--device", "gpu")
    expect(done, 2, "'gpu'", "cpu")
    assert client.used_units() == 0


def ask_images(client: Client, images: list[bytes]) -> Any:
    body = {"items": [{"image": base64.b64encode(image).decode()} for image in images]}
    request = urllib.request.Request(
        f"{client.vendor.url}/v1/embeddings/images",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {client.api_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
