"""OpenAI's SDK buys, as the documents have it; then an import, a clean audit, and a training without a query."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.client.client_shell import QUICK, Result, invoke
from support.vendor.live_parties import Client, Vendor

PAGE = Path(__file__).parents[2] / "docs" / "other-clients.md"
MODEL = "hash-64"
Ask = Callable[[list[Any]], int]


def blocks() -> list[str]:
    """The page's code in Python."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@contextmanager
def by_openai(client: Client, recording: Path) -> Iterator[Ask]:
    """Buy with OpenAI's own SDK and the page's recorder."""
    pytest.importorskip("openai", reason="needs OpenAI's SDK: pip install openai")
    code = blocks()[0].partition("client.embeddings.create(")[0]  # what is bought there is not what is bought here
    code = code.replace("http://vendor:8000", client.vendor.url).replace("vl2v_...", client.api_key)
    names: dict[str, Any] = {}
    exec(code.replace('"bought.jsonl"', repr(str(recording))), names)
    with names["client"] as sdk:
        yield lambda given: len(sdk.embeddings.create(model=MODEL, input=given).data)


@contextmanager
def by_httpx(client: Client, recording: Path) -> Iterator[Ask]:
    """Buy as that SDK does, with the page's recorder, where the SDK is not installed."""
    names: dict[str, Any] = {"json": json}
    recorder = blocks()[0].split("\n\n\n")[1]
    exec(recorder.replace('"bought.jsonl"', repr(str(recording))), names)
    bearer = {"Authorization": f"Bearer {client.api_key}"}
    url, hooks = f"{client.vendor.url}/v1/", {"response": [names["record"]]}
    with httpx.Client(base_url=url, headers=bearer, event_hooks=hooks) as http:

        def ask(given: list[Any]) -> int:
            body = {"model": MODEL, "input": given, "encoding_format": "base64"}
            return len(http.post("embeddings", json=body).raise_for_status().json()["data"])

        yield ask


@pytest.mark.parametrize("buyer", [by_openai, by_httpx])
def test_a_run_trains_on_what_other_software_bought(
    buyer: Callable[[Client, Path], AbstractContextManager[Ask]],
    shared_vendor: Vendor,
    new_client: Callable[..., Client],
    shapes: Path,
    tmp_path: Path,
) -> None:
    recording, client = tmp_path / "bought.jsonl", new_client(shared_vendor)
    domains = ("photo", "cartoon")
    files = [path for domain in domains for path in sorted((shapes / domain).rglob("*.png"))]
    urls = [f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in files]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    prompts = [f"a photo of a {path.name}" for path in sorted((shapes / "photo").iterdir())]
    with buyer(client, recording) as ask:
        assert [ask(given) for given in (parts[:20], parts[20:], prompts)] == [20, len(files) - 20, 4]
    spent = client.used_units()
    assert spent == len(files) + 4 == 52

    def run(*words: str | Path) -> Result:
        return invoke([str(word) for word in words], {**client.environment, "COLUMNS": "200"})

    audit = run("audit", "--json")
    others = json.loads(audit.stdout)["other_software"]
    assert (audit.exit_code, others["units"], others["requests"]) == (3, spent, 3)
    imported = run("cache", "import", recording, "--json")
    assert (imported.exit_code, json.loads(imported.stdout)["items"]) == (0, spent), imported.output
    audit = run("audit", "--json")
    assert (audit.exit_code, json.loads(audit.stdout)["matched"]) == (0, spent)
    assert run("cache", "verify").exit_code == 0

    data = ("--data", shapes, "--target-domain", "sketch", "--views", "1")
    assert json.loads(run("plan", *data, "--json").stdout)["new_queries"] == 0
    trained = run("distill", *data, "--out", tmp_path / "run", *QUICK)
    assert trained.exit_code == 0, trained.output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["rows"][-1]["target"] is not None
    assert client.used_units() == spent
    assert run("audit").exit_code == 0
