"""`evaluate` on data that has changed since the run, on copies of it, and beside another process."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import DataError, RunError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeVendor, ClientShell, Path]]:
    """A run that is done, and a copy of all its files: of ten pictures of each class, no two alike."""
    torch.set_num_threads(1)
    vendor, home, copy = FakeVendor(), tmp_path_factory.mktemp("evaluate"), tmp_path_factory.mktemp("copy")
    draw_domains(home / "data", 10)
    with served(vendor) as url:
        shell = ClientShell(url, home, "--target-domain", "sketch", "--views", "1")
        done = shell.try_distill()
        assert done.exit_code == 0, done.output
        shutil.copytree(home, copy, dirs_exist_ok=True)
        yield vendor, shell, copy


@pytest.fixture
def vendor(finished: tuple[FakeVendor, ClientShell, Path]) -> FakeVendor:
    return finished[0]


@pytest.fixture
def shell(finished: tuple[FakeVendor, ClientShell, Path]) -> ClientShell:
    """The run as it was, at its place."""
    _, shell, copy = finished
    shutil.rmtree(shell.folder)
    shutil.copytree(copy, shell.folder)
    return shell


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def scores(shell: ClientShell, *words: str) -> dict[tuple[str, str], tuple[int, float]]:
    done = shell.run("evaluate", str(shell.run_folder), "--json", *words)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    return {(row["domain"], row["role"]): (row["images"], row["student"]) for row in rows}


def test_a_file_more_changes_no_score(shell: ClientShell) -> None:
    before = scores(shell)
    assert {place: images for place, (images, _) in before.items()} == {
        ("art", "source, hold-out"): 4,
        ("photo", "source, hold-out"): 4,
        ("sketch", "unseen"): 20,
    }
    draw(shell.data / "photo" / "cat" / "00.png", 1)
    draw(shell.data / "sketch" / "cat" / "00.png", 2)
    assert scores(shell) == before


@pytest.mark.parametrize("fate", ["removed", "changed"])
def test_an_image_that_judged_the_run_and_is_no_more_is_named(shell: ClientShell, fate: str) -> None:
    image = shell.data / "sketch" / "dog" / "3.png"
    if fate == "removed":
        image.unlink()
    else:
        draw(image, 3)
    done = shell.run("evaluate", str(shell.run_folder))
    assert isinstance(done.exception, DataError)
    assert "lost or changed 1 images that the run was scored on, such as sketch/dog/3.png" in str(done.exception)


def test_in_a_copy_the_images_that_were_trained_on_are_not_called_unseen(
    shell: ClientShell, vendor: FakeVendor
) -> None:
    copy = shell.folder / "copy"
    shutil.copytree(shell.data, copy)
    draw(copy / "art" / "cat" / "new.png", 4)
    billed = vendor.billed_units
    found = scores(shell, "--data", str(copy), "--teacher", "--yes")
    assert {place: images for place, (images, _) in found.items()} == {
        ("art", "source, hold-out"): 4,
        ("art", "trained on"): 16,
        ("art", "unseen"): 1,
        ("photo", "source, hold-out"): 4,
        ("photo", "trained on"): 16,
        ("sketch", "unseen"): 20,
    }
    assert vendor.billed_units - billed == 21
    assert shell.read("report.json")["rows"][0]["target"] is None, "the report is of the run's own images"


def test_nothing_unseen_leaves_nothing_to_ask(shell: ClientShell) -> None:
    copy = shell.folder / "copy"
    shutil.copytree(shell.data, copy)
    shutil.rmtree(copy / "sketch")
    done = shell.run("evaluate", str(shell.run_folder), "--data", str(copy), "--teacher", "--yes")
    assert "give other images as" in str(done.exception)


def test_two_processes_do_not_score_in_one_folder(shell: ClientShell) -> None:
    with (shell.run_folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shell.run("evaluate", str(shell.run_folder))
    assert isinstance(done.exception, RunError)
    assert "another process is at work" in str(done.exception)


def test_a_process_that_is_turned_away_leaves_the_settings_alone(shell: ClientShell) -> None:
    shutil.rmtree(shell.run_folder)
    shell.run_folder.mkdir()
    with (shell.run_folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (shell.run_folder / "config.json").write_text("{}")
        done = shell.try_distill()
    assert "another process is at work" in str(done.exception)
    assert (shell.run_folder / "config.json").read_text() == "{}"


def test_what_differs_is_told_without_what_follows_from_it(shell: ClientShell) -> None:
    refused = str(shell.try_distill("--align-steps", "7", "--baseline", "erm").exception)
    assert "--align-steps was 2, is 7; --baseline was [], is ['erm']" in refused
    assert "stages" not in refused
    assert len(refused.split("; ")) == 2


def test_no_lock_is_left_in_a_folder_of_something_else(shell: ClientShell) -> None:
    shutil.rmtree(shell.run_folder)
    shell.run_folder.mkdir()
    (shell.run_folder / "thesis.tex").touch()
    done = shell.try_distill()
    assert "is not empty and holds no run" in str(done.exception)
    assert [path.name for path in shell.run_folder.iterdir()] == ["thesis.tex"]


def test_a_run_on_other_test_images_does_not_keep_the_row_that_the_teacher_was_asked_for(shell: ClientShell) -> None:
    assert shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes").exit_code == 0
    asked = shell.read("report.json")
    shell.try_distill()
    assert shell.read("report.json") == asked
    (shell.data / "sketch" / "dog" / "0.png").unlink()
    done = shell.try_distill()
    assert done.exit_code == 0, done.output
    report = shell.read("report.json")
    assert (report["rows"][0]["target"], report["purchase"]["test_images"]) == (None, 0)
    assert "against zero-shot teacher" not in done.output


def test_a_run_that_is_killed_before_its_report_does_not_keep_it_either(
    shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes").exit_code == 0
    for path in (shell.data / "sketch").glob("*/*.png"):
        draw(path, sum(str(path).encode()))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vl2v_client.runs.reporting.export_bundle", die)
        shell.try_distill()
    assert shell.try_distill().exit_code == 0
    assert shell.read("report.json")["rows"][0]["target"] is None


@pytest.mark.parametrize("content", ["", "[]", '{"of": ', "{}"])
def test_a_damaged_record_of_a_run_is_named(shell: ClientShell, content: str) -> None:
    (shell.run_folder / "images.json").write_text(content)
    refused = shell.run("evaluate", str(shell.run_folder))
    assert isinstance(refused.exception, RunError)
    assert "images.json is damaged" in str(refused.exception)
