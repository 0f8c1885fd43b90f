"""The pilot: asks exactly what it says, never opens the target, and advises by its rules; later runs reuse it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import UsageError
from vl2v_client.evaluation.pilot_findings import (
    DomainFinding,
    advise,
    domain_finding,
    histogram,
    probe_accuracies,
    suspects,
)
from vl2v_client.runs import pilot_report
from vl2v_contract.identity import text_sha

TRAIN, TEXTS = 32, 2


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[tuple[ClientShell, FakeVendor]]:
    """Two source domains of two classes of ten pictures less the hold-out; the target's files are no images at all."""
    torch.set_num_threads(1)
    vendor, random = FakeVendor(image_size=32), np.random.default_rng(0)
    for domain in ("art", "photo", "sketch"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / domain / name).mkdir(parents=True)
            for index in range(10):
                path = tmp_path / "data" / domain / name / f"{index}.png"
                Image.fromarray(random.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
                if domain == "sketch":
                    path.write_bytes(b"never opened")
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch"), vendor


def test_a_pilot_asks_what_it_says_and_leaves_the_target_closed(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, vendor = shell
    report = run.json("pilot", "--queries", "30", "--yes")
    assert (report["images"], report["flipped"]) == (16, 5)
    assert report["billed_units"] == vendor.billed_units == 16 + 2 * 5 + TEXTS
    assert report["amount_micro"] == 26 * 100 + TEXTS * 10
    assert [(domain["domain"], domain["images"]) for domain in report["domains"]] == [("art", 8), ("photo", 8)]
    assert sum(count for _, count in report["cosines"]) == 16
    assert run.json("pilot", "--queries", "30", "--yes")["billed_units"] == 0


def test_what_a_pilot_bought_serves_a_later_choice(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, vendor = shell
    offers = {offer["options"]: offer for offer in run.json("pilot", "--queries", "30", "--yes")["offers"]}
    assert offers["--views 1"]["new"] == TRAIN - 16
    assert offers["--views 1"]["amount_micro"] == (TRAIN - 16) * 100
    chosen = run.json("plan", "--views", "1", "--select", "random", "--max-queries", str(TEXTS + 20))
    assert chosen["new_queries"] == 4
    before = vendor.billed_units
    for options, offer in offers.items():
        planned = run.json("plan", *options.split())
        assert (planned["new_queries"], planned["amount_micro"]) == (offer["new"], offer["amount_micro"])
    assert vendor.billed_units == before


def test_what_is_offered_is_what_a_run_of_the_pilot_s_seed_asks(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, _ = shell
    offers = run.json("pilot", "--queries", "30", "--seed", "3", "--yes")["offers"]
    assert {offer["name"]: run.json("plan", *offer["options"].split())["new_queries"] for offer in offers} == {
        offer["name"]: offer["new"] for offer in offers
    }


def test_two_images_are_enough_for_every_figure(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, _ = shell
    for domain in ("art", "photo"):
        first, *others = sorted((run.data / domain).glob("*/*.png"))
        for path in others:
            shutil.copy(first, path)
    report = run.json("pilot", "--yes")
    assert report["flipped"] == 1
    assert all(-1 <= report[name] <= 1 for name in ("flip_cosine", "crop_cosine"))


def test_copies_are_asked_about_once_and_the_rest_still_serves_a_later_choice(
    shell: tuple[ClientShell, FakeVendor], tmp_path: Path
) -> None:
    for name, number in (("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1), ("dog", 2)):
        for copy in range(6):
            shutil.copy(
                tmp_path / "data" / "art" / name / f"{number}.png",
                tmp_path / "data" / "photo" / name / f"copy {number} {copy}.png",
            )
    run, vendor = shell
    report = run.json("pilot", "--queries", "30", "--yes")
    assert (report["images"], vendor.billed_units) == (16, 16 + 2 * 5 + TEXTS)
    words = ("--views", "1", "--select", "random", "--max-queries")
    assert run.json("plan", *words, str(TEXTS + 16))["new_queries"] == 0
    for offer in report["offers"]:
        assert run.json("plan", *offer["options"].split())["new_queries"] == offer["new"]


def test_the_table_names_every_rule_and_price(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, _ = shell
    shown = run.run("pilot", "--yes")
    assert shown.exit_code == 0, shown.output
    for part in ("photo", "worth buying: ", "two standard errors", "image weight", "EUR", "--views 1", "mirror image"):
        assert part in shown.stdout
    assert f"bought {TRAIN + 2 * (TRAIN // 3) + TEXTS} queries for 0.00522 EUR" in shown.stdout


def test_a_domain_that_was_not_asked_about_is_left_out(
    shell: tuple[ClientShell, FakeVendor], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = shell
    for domain in ("early", "film", "rare"):
        shutil.copytree(run.data / "art", run.data / domain)
        for picture in (run.data / domain).rglob("*.png"):
            Image.fromarray(np.asarray(Image.open(picture)) ^ len(domain)).save(picture)
    monkeypatch.setattr(pilot_report, "FEWEST_IMAGES", 1)
    monkeypatch.setattr(pilot_report, "_PROBE_IMAGES", 1)
    found = run.json("pilot", "--queries", "7", "--yes")["domains"]
    assert len(found) < 5
    assert sum(domain["images"] for domain in found) == 3


def test_a_pilot_asks_before_it_spends_and_refuses_too_few(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, vendor = shell
    assert "Buy this?" in run.run("pilot").output
    assert isinstance(run.run("pilot", "--json").exception, UsageError)
    few = run.run("pilot", "--yes", "--queries", "9")
    assert isinstance(few.exception, UsageError)
    assert "ask 12 or more" in str(few.exception)
    assert vendor.billed_units == 0
    assert run.json("pilot", "--yes", "--queries", "12")["images"] == 6


class SeeingVendor(FakeVendor):
    """Takes dark pictures for cats and light ones for dogs."""

    def __init__(self) -> None:
        super().__init__(image_size=32)
        self.axes = np.eye(self.dimension, dtype=np.float32)
        self.taken_for = {text_sha("a photo of a cat"): 0, text_sha("a photo of a dog"): 1}
        self.texts = set(self.taken_for)

    def _image_sha(self, data: bytes) -> str:
        content_sha = super()._image_sha(data)
        with Image.open(io.BytesIO(data)) as image:
            self.taken_for[content_sha] = int(np.asarray(image).mean() > 128)
        return content_sha

    def vector(self, content_sha: str) -> np.ndarray:
        noise = 0.0 if content_sha in self.texts else 0.2
        mixed = self.axes[self.taken_for[content_sha]] + noise * super().vector(content_sha)
        return (mixed / np.linalg.norm(mixed)).astype(np.float32)


def test_a_good_teacher_is_trusted_and_finds_the_wrong_label(tmp_path: Path) -> None:
    for domain in ("art", "photo", "sketch"):
        for place, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / domain / name).mkdir(parents=True)
            for index in range(10):
                light = 255 if (domain, name, index) == ("art", "cat", 1) else 255 * place
                pixels = np.full((10, 12, 3), light, dtype=np.uint8)
                pixels[0, 0] = (index, len(domain), place)
                Image.fromarray(pixels).save(tmp_path / "data" / domain / name / f"{index}.png")
    with served(SeeingVendor()) as url:
        report = ClientShell(url, tmp_path, "--target-domain", "sketch").json("pilot", "--yes")
    assert [domain["teacher"] for domain in report["domains"]] == [15 / 16, 1.0]
    assert [Path(suspect["path"]).parts[-3:] for suspect in report["suspects"]] == [("art", "cat", "1.png")]
    assert report["suspects"][0]["teacher_says"] == "dog"
    assert report["advice"]["image_weight"] == 0.45


# The rules, by hand


def _domain(teacher: float, probe: float, *, error: float = 0.02, majority: float = 0.25) -> DomainFinding:
    return DomainFinding("photo", 50, teacher, error, probe, majority)


@pytest.mark.parametrize(
    ("teacher", "probe", "verdict", "weight"),
    [
        (1.0, 0.5, "yes", 0.5),
        (0.85, 0.83, "undecided", 0.4),
        (0.55, 0.70, "no", 0.2),
        (0.26, 0.10, "no", 0.0),
        (0.10, 0.05, "no", 0.0),
    ],
)
def test_verdict_and_image_weight(teacher: float, probe: float, verdict: str, weight: float) -> None:
    advice = advise([_domain(teacher, probe)], flip_cosine=0.95, crop_cosine=0.97)
    assert (advice.worth_buying, advice.image_weight) == (verdict, weight)
    assert advice.views == (0 if verdict == "no" else 2)


@pytest.mark.parametrize(("flip", "crop", "views"), [(0.99, 0.98, 1), (0.99, 0.95, 2), (0.93, 0.99, 2), (0.99, 0.9, 4)])
def test_views_follow_the_less_alike_of_flip_and_crop(flip: float, crop: float, views: int) -> None:
    assert advise([_domain(0.9, 0.5)], flip_cosine=flip, crop_cosine=crop).views == views


def test_domains_count_alike_and_a_few_right_answers_are_no_certainty() -> None:
    finding = domain_finding("art", np.array([True] * 4), 0.5, np.array([0, 0, 0, 1]))
    assert (finding.teacher, finding.majority) == (1.0, 0.75)
    assert finding.standard_error == pytest.approx((5 / 6 * 1 / 6 / 4) ** 0.5)
    two = advise([_domain(1.0, 0.5), _domain(0.0, 0.5)], flip_cosine=1, crop_cosine=1)
    assert two.difference == pytest.approx(0.0)
    assert two.standard_error == pytest.approx(0.02 * 2**0.5 / 2)


def test_the_probe_has_not_seen_the_domain_that_it_is_judged_on() -> None:
    random = np.random.default_rng(0)
    labels = np.tile([0, 1], 40)
    domains = ["art"] * 40 + ["photo"] * 40
    features = random.normal(size=(80, 4)).astype(np.float32)
    features[:, 0] = np.where(labels == 1, 3, -3)
    features[:40, 0] *= -1  # what tells the classes in one domain misleads in the other
    assert probe_accuracies(features, labels, domains, seed=0) == {"art": 0.0, "photo": 0.0}
    assert probe_accuracies(features[40:], labels[40:], domains[40:], seed=0) == {"photo": 1.0}


def test_the_histogram_has_every_step_between_the_ends() -> None:
    assert histogram(np.array([-0.01, 0.02, 0.05, 0.17])) == ((-0.05, 1), (0.0, 1), (0.05, 1), (0.1, 0), (0.15, 1))


def test_a_suspect_is_both_far_from_its_label_and_named_otherwise() -> None:
    cosines = np.r_[np.linspace(0.28, 0.31, 20), 0.05, 0.06, 0.02]
    labels = np.zeros(23, dtype=np.int64)
    named = np.r_[np.zeros(19), 1, 1, 0, 1].astype(np.int64)
    assert suspects(cosines, labels, named) == [22, 20]
