"""The published protocol beside the paper: data are checked before anything is bought, and the table is the runs'."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paper_table
import published_data
import pytest
import reproduce
import timm
import torch
from PIL import Image
from published_data import find_faults, published_sets
from safetensors.torch import save_file

from support.client.client_shell import invoke
from support.client.fake_vendor import API_KEY, FakeVendor, served
from support.vendor.tiny_clip import write_tiny_clip
from vl2v_client.data.folder import open_dataset

IMAGES = 3
"""Of each class in each domain of the miniature."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A miniature in the layout of PACS."""
    pacs, rng = published_sets()["PACS"], np.random.default_rng(0)
    for domain in pacs.domains:
        for name in pacs.classes:
            folder = tmp_path / "PACS" / domain / name
            folder.mkdir(parents=True)
            for index in range(IMAGES):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "PACS"


@pytest.fixture
def miniature(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and a list of published data sets in which PACS has these counts."""
    read = json.loads(published_data.FILE.read_text())
    of_domain = IMAGES * len(read["PACS"]["classes"])
    read["PACS"] |= {"images": 4 * of_domain, "domains": dict.fromkeys(read["PACS"]["domains"], of_domain)}
    (tmp_path / "sets.json").write_text(json.dumps(read))
    monkeypatch.setattr(published_data, "FILE", tmp_path / "sets.json")
    return data


@pytest.fixture
def narrow_resnet50(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of timm's resnet50 with fewer and narrower blocks: a whole one has 850 MB of checkpoint a run."""
    whole = timm.models.model_entrypoint("resnet50")

    def narrow(pretrained: bool = False, **arguments: Any) -> torch.nn.Module:
        return whole(pretrained, **arguments, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))  # type: ignore[no-any-return]

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "resnet50", narrow)
    torch.manual_seed(0)
    save_file(timm.create_model("resnet50").state_dict(), tmp_path / "resnet50.safetensors")
    return tmp_path / "resnet50.safetensors"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Every command of the client that is given; it runs in this process."""
    given: list[tuple[str, ...]] = []

    def run(environment: dict[str, str], *words: str, show: bool) -> str:
        given.append(words)
        done = invoke(list(words[1:]), {**environment, "VL2V_CACHE": str(tmp_path / "client.db")})
        assert done.exit_code == 0, done.output
        return done.stdout

    monkeypatch.setattr(reproduce, "run", run)
    monkeypatch.setenv("VL2V_API_KEY", API_KEY)
    return given


@pytest.fixture
def vendor() -> Iterator[tuple[FakeVendor, str]]:
    vendor = FakeVendor()
    with served(vendor) as url:
        yield vendor, url


def _cells(shown: str, table: str, row: str) -> list[str]:
    line = next(line for line in shown.splitlines() if re.match(rf"│ {table} +│ {re.escape(row)} +│", line))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_protocol_runs_once_and_its_table_is_beside_the_paper_s(
    miniature: Path,
    narrow_resnet50: Path,
    commands: list[tuple[str, ...]],
    vendor: tuple[FakeVendor, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.set_num_threads(1)
    clip, home, result = write_tiny_clip(tmp_path), tmp_path / "out", tmp_path / "result.json"
    words = ["--dataset", "PACS", "--data", str(miniature), "--vendor-url", vendor[1], "--yes", "--views", "1"]
    words += ["--student", "resnet50", "--student-weights", str(narrow_resnet50), "--student-size", "32"]
    words += ["--local-teacher", str(clip.config_file), "--local-weights", str(clip.checkpoint_file)]
    words += ["--seeds", "1", "--steps", "3", "--out", str(home), "--json", str(result)]
    words += ["--", "--batch-size", "1", "--evaluate-every", "2", "--device", "cpu"]
    reproduce.main(words)

    pacs = published_sets()["PACS"]
    assert vendor[0].billed_units == 4 * 17 + len(pacs.classes)  # of 21 images a domain, one purchase for all
    runs = sorted(str(path.parent.relative_to(home)) for path in home.glob("*/*/seed0/*/report.json"))
    black = [f"black-box/{domain}/seed0/{method}" for domain in pacs.domains for method in ("erm", "vl2v-adip")]
    assert runs == [*black, *(f"white-box/{domain}/seed0/vl2v-sd" for domain in pacs.domains)]
    for place in runs:
        training = json.loads((home / place / "config.json").read_text())["training"]
        assert (training["preset"], training["align_segments"]) == ("paper", "cumulative")

    shown = capsys.readouterr().out
    assert "The student is not the one of the paper's tables" in shown
    assert "The data are not" not in shown
    for table, row, paper, place in (
        ("black box", "ERM full fine-tuning", "90.28", "black-box"),
        ("black box", "VL2V-ADiP", "94.94", "black-box"),
        ("white box", "VL2V-SD", "96.68", "white-box"),
    ):
        report = json.loads((home / place / "report.json").read_text())
        name = "ERM" if row.startswith("ERM") else row
        ours = next(100 * one["mean"]["mean"] for one in report["tables"]["target_in"] if one["method"] == name)
        cells = _cells(shown, table, row)
        assert cells[2:6] == [paper, f"{ours:.2f}", "", f"{round(ours - float(paper), 2):.2f}"]
        assert len(cells) == 6 + len(pacs.domains)
    assert _cells(shown, "black box", "RISE")[2:] == ["93.54", *[""] * 7]
    assert _cells(shown, "white box", "zero-shot")[2] == "96.50"
    assert len(json.loads(result.read_text())["rows"]) == sum(
        len(one["rows"]) for one in paper_table.read_paper()["tables"]
    )

    stamps = {path: path.stat().st_mtime_ns for path in home.glob("*/*/seed0/*/report.json")}
    billed = vendor[0].billed_units
    reproduce.main(words)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert vendor[0].billed_units == billed
    assert _cells(capsys.readouterr().out, "white box", "VL2V-SD") == _cells(shown, "white box", "VL2V-SD")


def test_other_data_are_refused_before_anything_is_bought_unless_allowed(
    data: Path, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", "PACS", "--data", str(data), "--seeds", "1"]
    with pytest.raises(
        SystemExit, match=r"art_painting has 21 images, PACS has 2,048 there: unpack it again"
    ) as refused:
        reproduce.main(words)
    assert "--other-data" in str(refused.value)
    assert commands == []
    report = {
        "student": "s",
        "teacher": "t",
        "views": "4",
        "seeds": [0],
        "targets": [],
        "teacher_target_in": {"a": 1.0},
    }
    monkeypatch.setattr(reproduce, "sweep", lambda *_: {**report, "tables": {"target_in": []}})
    reproduce.main([*words, "--other-data"])
    assert "The data are not the published ones" in capsys.readouterr().out


def test_a_folder_that_is_the_data_set_has_no_faults(miniature: Path) -> None:
    assert find_faults(open_dataset(miniature), published_sets()["PACS"]) == []


def test_a_wrong_count_names_the_domain_and_both_counts(miniature: Path) -> None:
    (miniature / "photo" / "dog" / "0.png").unlink()
    (miniature / "sketch" / "dog" / "copy.png").write_bytes((miniature / "sketch" / "dog" / "0.png").read_bytes())
    assert find_faults(open_dataset(miniature), published_sets()["PACS"]) == [
        f"{miniature}/photo has 20 images, PACS has 21 there: unpack it again, some images are missing",
        f"{miniature}/sketch has 22 images, PACS has 21 there: remove the images that were added",
    ]


@pytest.mark.parametrize("what", ["class", "domain"])
def test_a_missing_and_an_unknown_name_are_named(miniature: Path, what: str) -> None:
    if what == "class":
        for domain in published_sets()["PACS"].domains:
            (miniature / domain / "horse").rename(miniature / domain / "pony")
    else:
        (miniature / "sketch").rename(miniature / "drawing")
    known, unknown = ("horse", "pony") if what == "class" else ("sketch", "drawing")
    assert find_faults(open_dataset(miniature), published_sets()["PACS"]) == [
        f"{miniature} lacks the {what} {known} of PACS: add its folder, or rename it so",
        f"{miniature} has the {what} {unknown}, which PACS has not: move it elsewhere",
    ]


def test_domains_may_be_spelt_with_a_space_or_without(miniature: Path) -> None:
    (miniature / "art_painting").rename(miniature / "Art Painting")
    assert find_faults(open_dataset(miniature), published_sets()["PACS"]) == []


def test_duplicates_of_the_list_are_named(miniature: Path, tmp_path: Path) -> None:
    listed = tmp_path / "duplicates.txt"
    listed.write_text("photo/dog/0.png\nphoto/dog/99.png\n\nsketch/cat/0.png\nsketch/dog/1.png\n")
    faults = find_faults(open_dataset(miniature), published_sets()["PACS"], listed)
    assert faults == [f"{miniature} has 2 duplicates of {listed}, photo/dog/0.png, sketch/dog/1.png: remove them"]
    with pytest.raises(SystemExit, match=r"nothing\.txt cannot be read .* give DomainBed's misc/domain_net_duplicates"):
        find_faults(open_dataset(miniature), published_sets()["PACS"], tmp_path / "nothing.txt")


def test_domain_net_with_its_duplicates_is_told_from_one_that_lacks_images(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = json.loads(published_data.FILE.read_text())
    read["DomainNet"] |= {"classes": read["PACS"]["classes"], "domains": dict.fromkeys(read["PACS"]["domains"])}
    for images, remedy in ((83, "DomainBed removes 9,431 duplicates"), (85, "unpack it again")):
        published_data.FILE.write_text(json.dumps(read | {"DomainNet": {**read["DomainNet"], "images": images}}))
        count, name = find_faults(open_dataset(miniature), published_sets()["DomainNet"])
        assert f"has 84 images, DomainNet has {images}: {remedy}" in count
        assert name.endswith("for 5,001 in any other: rename it domain_net")


def test_the_published_sets_are_those_of_the_literature() -> None:
    sets = published_sets()
    assert {name: (one.images, len(one.domains), len(one.classes)) for name, one in sets.items()} == {
        "PACS": (9_991, 4, 7),
        "VLCS": (10_729, 4, 5),
        "OfficeHome": (15_588, 4, 65),
        "TerraIncognita": (24_788, 4, 10),
        "DomainNet": (586_575, 6, 345),
    }
    for one in sets.values():
        counts = [count for count in one.domains.values() if count is not None]
        assert sum(counts) in (0, one.images)
        assert len(set(one.classes)) == len(one.classes)
        assert one.source
