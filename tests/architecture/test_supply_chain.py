"""The checks of the supply chain: the scan for secrets, and the bill of materials of a release."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import venv
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

check_secrets = pytest.importorskip(
    "check_secrets", reason="needs detect-secrets, of the extra `dev`", exc_type=ImportError
)

SECRETS = {
    "an API key in prose": "use vl2v_" + "q7-W" * 10 + "xyz to buy",
    "a quoted token": f'token = "{b64encode(sha256(b"any").digest()).decode()}"',
    "a private key": "-----BEGIN " + "PRIVATE KEY-----",
    "a password in a URL": "postgresql://vl2v:" + "hunter22@db.example/vl2v",
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_a_secret_in_a_file_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.txt").write_text(f"first line\n{text}\n")
    (tmp_path / "plain.txt").write_text("the prefix vl2v_ and the hash " + "0f" * 32)
    found = check_secrets.find_secrets(tmp_path, check_secrets.listed_files(tmp_path))
    assert list(found) == ["docs/notes.txt"]
    assert all(one.startswith("line 2: ") for one in found["docs/notes.txt"])


def test_an_exception_is_for_one_file_and_ends_with_its_finding() -> None:
    found = {"a.py": ["line 1: Private Key"], "b.py": ["line 2: Private Key"]}
    assert check_secrets.faults(found, {"a.py": "a sample", "c.py": "gone"}) == [
        "b.py, line 2: Private Key",
        "c.py: nothing is found there; delete its exception",
    ]


def test_each_exception_has_its_reason() -> None:
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["check-secrets"]["allowed"]
    assert [name for name, reason in allowed.items() if not reason or not (ROOT / name).is_file()] == []


@pytest.mark.slow
def test_a_release_has_a_bill_of_materials(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="needs cyclonedx-bom, of the extra `dev`")
    command = re.search(r"cyclonedx-py (environment [^\\]*)\\\n\s*(.*) --output-file", (ROOT / "Makefile").read_text())
    assert command is not None
    options = [word for words in command.groups() for word in words.split()]
    venv.create(tmp_path / "environment")
    bill = tmp_path / "bill.json"
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *options, "--output-file", bill, tmp_path / "environment"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    document = json.loads(bill.read_text())
    assert (document["bomFormat"], document["metadata"]["component"]["name"]) == ("CycloneDX", "vl2v")
