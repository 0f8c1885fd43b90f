"""`vl2v-client export` on a finished run: the accuracy of each export is the report's; and the lines of the docs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.data.images import load_rgb

PAGE = Path(__file__).parents[2] / "docs" / "shipping.md"
ONNX = ("onnx", "onnxruntime", "onnxscript")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientShell]:
    """A finished run; its unseen domain has 20 pictures of two classes."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("export")
    draw_domains(home / "data", 10)
    with served(FakeVendor()) as url:
        shell = ClientShell(url, home, "--target-domain", "sketch", "--views", "1")
        shell.distill()
        yield shell


def pictures(shell: ClientShell) -> list[Path]:
    return sorted((shell.data / "sketch").rglob("*.png"))


def accuracy(shell: ClientShell, named: list[str]) -> float:
    right = [name == path.parent.name for name, path in zip(named, pictures(shell), strict=True)]
    return sum(right) / len(right)


def reported(shell: ClientShell) -> float:
    row = shell.read("report.json")["rows"][-1]
    assert row["name"] == "VL2V-ADiP"
    return float(row["target"])


def block(heading: str) -> str:
    """The lines of Python below a heading of the page."""
    found = re.search(rf"## {heading}\n.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_timm_has_the_report_s_accuracy_by_its_own_transform(shell: ClientShell) -> None:
    done = shell.json("export", str(shell.run_folder), "--format", "hf")
    folder = shell.run_folder / "student-hf"
    hold_out = sum(row["images"] for row in shell.read("report.json")["by_domain"] if row["seen"])
    assert (done["folder"], done["images"], done["exact"]) == (str(folder), hold_out, False)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        logits = model(torch.stack([transform(load_rgb(path)) for path in pictures(shell)]))
    names = model.pretrained_cfg["label_names"]
    assert accuracy(shell, [names[index] for index in logits.argmax(-1).tolist()]) == pytest.approx(reported(shell))
    card = (folder / "README.md").read_text()
    assert "# data: 2 classes" in card
    assert "| source domains | art, photo |" in card


def test_the_lines_for_timm_run(
    shell: ClientShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "student-hf")
    assert shell.run("export", str(shell.run_folder), "--format", "hf", "--out", out).exit_code == 0
    shutil.copy(pictures(shell)[0], tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    exec(block("Use it in timm"), {})
    name, probability = capsys.readouterr().out.split()
    row = shell.json("predict", str(shell.run_folder), str(tmp_path / "new.jpg"))
    assert name == row["class"]
    assert float(probability) == pytest.approx(row["probability"], abs=0.1)


@pytest.mark.filterwarnings("ignore")
def test_the_lines_that_serve_the_onnx_file_run_with_the_report_s_accuracy(
    shell: ClientShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ONNX:
        pytest.importorskip(package, reason="needs the extra onnx: make test-export")
    pytest.importorskip("fastapi", reason="the lines serve with FastAPI")
    from starlette.testclient import TestClient

    out = str(tmp_path / "student-onnx")
    done = shell.run("export", str(shell.run_folder), "--format", "onnx", "--out", out)
    assert done.exit_code == 0, done.output
    assert "the student's own class for each" in " ".join(done.stderr.split())
    monkeypatch.chdir(tmp_path)
    served_app: dict[str, Any] = {}
    exec(block("Serve the ONNX file"), served_app)
    answers = []
    with TestClient(served_app["app"]) as client:
        for path in pictures(shell):
            answer = client.post("/classify", content=path.read_bytes())
            assert answer.status_code == 200
            answers.append(answer.json())
    assert accuracy(shell, [max(answer, key=answer.__getitem__) for answer in answers]) == pytest.approx(
        reported(shell)
    )
    words = ["predict", str(shell.run_folder), *map(str, pictures(shell)), "--json", "--all-probabilities"]
    rows = [json.loads(line)["probabilities"] for line in shell.run(*words).stdout.splitlines()]
    for answer, row in zip(answers, rows, strict=True):
        assert answer == pytest.approx(row, abs=1e-4)


def test_an_export_as_vl2v_predicts_alike_elsewhere(shell: ClientShell, tmp_path: Path) -> None:
    out = str(tmp_path / "shipped")
    assert shell.run("export", str(shell.run_folder), "--format", "vl2v", "--out", out).exit_code == 0
    words = [*map(str, pictures(shell)), "--json"]
    assert shell.run("predict", out, *words).stdout == shell.run("predict", str(shell.run_folder), *words).stdout
    again = shell.run("export", out, "--format", "timm")
    assert (again.exit_code, "name images to compare" in " ".join(again.stderr.split())) == (2, True)
    cats = str(shell.data / "sketch" / "cat")
    done = shell.json("export", out, "--format", "timm", "--images", cats)
    assert (done["images"], Path(done["folder"]).name) == (10, "student-timm")


def test_a_run_whose_data_are_gone_says_how_to_go_on(shell: ClientShell, tmp_path: Path) -> None:
    shutil.move(shell.data, tmp_path / "data")
    try:
        done = shell.run("export", str(shell.run_folder), "--format", "timm", "--out", str(tmp_path / "timm"))
    finally:
        shutil.move(tmp_path / "data", shell.data)
    assert done.exit_code == 3
    assert "name other images to compare the export on" in " ".join(done.stderr.split())
    assert not (tmp_path / "timm").exists()


def test_an_image_to_compare_on_that_is_none_is_named(shell: ClientShell, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    for name in ("a.png", "b.png", "*.tif"):
        words = ("--format", "timm", "--out", str(tmp_path / "timm"), "--images", str(tmp_path / name))
        done = shell.run("export", str(shell.run_folder), *words)
        assert (done.exit_code, name in done.stderr) == (3, True)
    assert not (tmp_path / "timm").exists()


def test_a_format_is_asked_for(shell: ClientShell) -> None:
    assert shell.run("export", str(shell.run_folder)).exit_code == 2
    assert shell.run("export", str(shell.run_folder), "--format", "tflite").exit_code == 2
