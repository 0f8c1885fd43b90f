"""Images that cannot be used: all named at once by `check`, or left out by a run, which then keeps to the same set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.data.folder import open_dataset
from vl2v_client.planning.broken import find_broken


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "1")


def test_check_shows_counts_and_prompts_and_names_what_is_broken_ignored_or_double(shell: ClientShell) -> None:
    data = shell.data
    (data / "art" / "cat" / "0.png").write_bytes(b"no image")
    (data / "art" / "cat" / "1.png").write_bytes((data / "photo" / "dog" / "1.png").read_bytes())
    (data / "art" / "cat" / "2.HEIC").write_bytes(b"")
    (data / "notes.txt").write_bytes(b"")
    (data / ".hidden").write_bytes(b"")
    done = shell.run("check", str(data), "--prompt", "one {class}", "--prompt", "a {class}", "--json")
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    assert found["counts"]["art"] == found["counts"]["photo"] == {"cat": 5, "dog": 5}
    assert found["prompts"] == {"cat": ["one cat", "a cat"], "dog": ["one dog", "a dog"]}
    assert [f"{data}/art/cat/0.png is not an image" in one for one in found["broken"]] == [True]
    assert found["ignored"] == {".heic": [f"{data}/art/cat/2.HEIC"], ".txt": [f"{data}/notes.txt"]}
    assert found["duplicates"] == [[f"{data}/art/cat/1.png", f"{data}/photo/dog/1.png"]]
    shown = shell.run("check", str(data)).stdout
    for part in (
        "a photo of a cat",
        "1 .heic: art/cat/2.HEIC",
        "art/cat/1.png = photo/dog/1.png",
        "images that cannot be used: 1",
    ):
        assert part in shown


def test_plan_shows_the_same_counts_and_tells_of_pictures_that_are_not_read(shell: ClientShell) -> None:
    (shell.data / "art" / "cat" / "2.gif").write_bytes(b"")
    planned = shell.run("plan")
    assert "1 .gif" in planned.stderr
    assert "a photo of a dog" in planned.stdout
    assert shell.json("plan")["counts"]["sketch"] == {"cat": 5, "dog": 5}


def test_a_run_leaves_broken_images_out_and_keeps_to_that_when_one_is_mended(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, of_target = shell.data / "art" / "cat" / "0.png", shell.data / "sketch" / "dog" / "3.png"
    good = broken.read_bytes()
    broken.write_bytes(b"no image")
    of_target.write_bytes(b"no image")
    assert "--skip-broken" in shell.try_distill().stderr
    assert vendor.billed_units == 0

    def die(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vl2v_client.recipes.distill.MethodTraining.methods", die)
        stopped = shell.try_distill("--skip-broken")
    assert "1 images cannot be used and are left out: art/cat/0.png" in stopped.stderr
    assert shell.read("config.json")["data"]["skipped"] == ["art/cat/0.png"]
    bought = vendor.billed_units
    broken.write_bytes(good)
    report = shell.distill("--skip-broken")
    assert vendor.billed_units == bought
    assert report["counts"]["train"] + report["counts"]["validation"] == 19
    assert report["counts"]["target"] == 9
    images = shell.read("images.json")
    assert "art/cat/0.png" not in {**images["train"], **images["validation"]}
    assert "sketch/dog/3.png" not in images["target"]


def test_a_file_is_left_out_of_the_folder_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(draw_domains(tmp_path / "data", 2))
    dataset = open_dataset(Path())
    left = dataset.without(("art/cat/0.png",))
    assert {*dataset.samples} - {*left.samples} == {dataset.samples[0]}


def test_what_was_decoded_before_is_not_read_again(cache: EmbeddingCache, tmp_path: Path) -> None:
    samples = open_dataset(draw_domains(tmp_path / "data", 2)).samples
    assert find_broken(samples, cache, size=8) == {}
    reads = []
    list(find_broken(samples, cache, size=8, progress=lambda phase, *_: reads.append(phase)))
    assert reads == []
    samples[3].path.write_bytes(b"no image")
    assert list(find_broken(samples, cache, size=8)) == [samples[3].path]
