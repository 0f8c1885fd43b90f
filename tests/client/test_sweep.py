"""`sweep`: one purchase for all targets, runs that read no target before they score it, and a table at the end."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.client.client_shell import ClientShell, Result
from support.client.fake_vendor import FakeVendor, served
from support.client.pages import Page, check_page
from support.vendor.tiny_clip import write_tiny_clip
from vl2v_client.cache.memo import SessionCache
from vl2v_client.config.run import PurchaseConfig
from vl2v_client.core.errors import DataError, RunError, UsageError
from vl2v_client.core.progress import silent
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.splits import split
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.reports.sweep_report import Outcome, method_rows
from vl2v_client.runs import run_place
from vl2v_client.runs.local_source import LocalSource, load_local_teacher
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.settings import SweepSettings, settle_sweep
from vl2v_contract.identity import text_sha

DOMAINS, CLASSES, IMAGES, VIEWS = ("art", "photo", "sketch"), ("cat", "dog"), 5, 2
TRAINED = len(DOMAINS) * len(CLASSES) * IMAGES * 4 // 5
QUICK = ("--align-steps", "2", "--distill-steps", "3", "--batch-size", "2", "--evaluate-every", "2", "--device", "cpu")


class Sweeper(ClientShell):
    """Sweeps into folders beside the data set."""

    def sweep(self, *words: str, out: str = "sweep") -> Result:
        return self.run("sweep", *QUICK, "--yes", "--out", str(self.folder / out), *words)

    def student(self, *place: str) -> bytes:
        return self.folder.joinpath(*place, "student", "student.safetensors").read_bytes()

    def report(self, out: str = "sweep") -> dict[str, Any]:
        return dict(json.loads((self.folder / out / "report.json").read_text()))


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[Sweeper]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        for name in CLASSES:
            folder = tmp_path / "data" / domain / name
            folder.mkdir(parents=True)
            for index in range(IMAGES):
                Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    with served(vendor) as url:
        yield Sweeper(url, tmp_path, "--views", str(VIEWS))


def test_one_purchase_serves_all_runs_exactly_and_the_table_is_that_of_the_runs(
    vendor: FakeVendor, shell: Sweeper
) -> None:
    done = shell.sweep("--seed", "0", "--seed", "1", "--method", "erm", "--method", "vl2v-adip")
    assert done.exit_code == 0, done.output
    queries = TRAINED * VIEWS + len(CLASSES)
    assert vendor.billed_units == queries
    assert f"{queries:,} new queries. The published loop would ask {5 * 2 * 2 * 3 * 2}" in done.output

    report = shell.report()
    assert (report["purchase"]["images"], report["purchase"]["texts"]) == (TRAINED * VIEWS, len(CLASSES))
    assert report["queries"] == {"ERM": 0, "VL2V-ADiP": queries}
    assert report["published_queries"] == (2 + 3) * 2 * 2 * 3  # steps, batch, sources, targets
    of_runs = {}
    for target in DOMAINS:
        for seed in (0, 1):
            for method in ("erm", "vl2v-adip"):
                run = shell.report(f"sweep/{target}/seed{seed}/{method}")
                assert (run["target_domain"], run["seed"]) == (target, seed)
                of_runs[target, seed, run["rows"][-1]["name"]] = run["rows"][-1]["target_in"]
        assert not (shell.folder / "sweep" / target / "answers").exists()
    row = report["tables"]["target_in"][1]
    means = [sum(of_runs[target, seed, "VL2V-ADiP"] for target in DOMAINS) / 3 for seed in (0, 1)]
    assert row["mean"]["mean"] == pytest.approx(sum(means) / 2)
    assert row["mean"]["standard_error"] == pytest.approx(abs(means[0] - means[1]) / 2)
    for target in DOMAINS:
        both = [of_runs[target, seed, "VL2V-ADiP"] for seed in (0, 1)]
        assert row["by_target"][target]["mean"] == pytest.approx(sum(both) / 2)
    assert row["by_target"][row["worst"]]["mean"] == min(value["mean"] for value in row["by_target"].values())
    page = (shell.folder / "sweep" / "report.md").read_text()
    assert "| zero-shot teacher |" in page
    assert f"one purchase of {queries} queries ({TRAINED * VIEWS} images, {len(CLASSES)} texts)" in page
    html = Page((shell.folder / "sweep" / "report.html").read_text())
    assert shell.json("report", str(shell.folder / "sweep")) == report
    assert Page((shell.folder / "sweep" / "report.html").read_text()).text == html.text
    check_page(html)
    assert f"VL2V-ADiP {queries} {row['mean']['mean']:.1%}".replace("%", " %") in html.text

    again = shell.sweep("--seed", "0", "--seed", "1", "--method", "erm", "--method", "vl2v-adip")
    assert (again.exit_code, vendor.billed_units) == (0, queries)
    assert shell.report() == report


@pytest.mark.parametrize("command", ["sweep", "distill", "buy"])
def test_a_broken_hold_out_is_named_before_anything_is_bought(vendor: FakeVendor, shell: Sweeper, command: str) -> None:
    dataset = open_dataset(shell.data)
    broken = split(dataset, target_domain="sketch", seed=0).validation[0].path
    broken.write_bytes(broken.read_bytes()[:100])
    words = ("--target-domain", "sketch", "--yes")
    refused = shell.run("buy", *words) if command == "buy" else shell.run(command, *QUICK, *words)
    assert isinstance(refused.exception, DataError)
    assert str(broken) in str(refused.exception)
    assert vendor.billed_units == 0


def test_a_sweep_settles_its_options_once(shell: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    settled = []

    def counted(*words: Any) -> SweepSettings:
        settled.append(words)
        return settle_sweep(*words)

    monkeypatch.setattr(run_place, "settle_sweep", counted)
    assert shell.sweep("--target-domain", "sketch", "--method", "text-cosine", "--shard", "buy").exit_code == 0
    assert len(settled) == 1


def test_a_link_to_nothing_is_named(vendor: FakeVendor, shell: Sweeper) -> None:
    (shell.data / "sketch" / "cat" / "lost.png").symlink_to("nowhere.png")
    refused = shell.sweep("--target-domain", "sketch")
    assert isinstance(refused.exception, DataError)
    assert "lost.png cannot be read" in str(refused.exception)


def test_the_reports_tell_views_that_are_asked_about_from_those_that_borrow(shell: Sweeper) -> None:
    done = shell.sweep("--method", "vl2v-adip", "--target-domain", "sketch", "--train-views", "5")
    assert done.exit_code == 0, done.output
    page = (shell.folder / "sweep" / "report.md").read_text()
    assert f"Views of each training image: 5, {VIEWS} of them asked about, styles" in page
    run = (shell.folder / "sweep" / "sketch" / "seed0" / "vl2v-adip" / "report.md").read_text()
    assert "| styled views | 2 of each image, 0 of them asked about |" in run


def test_a_sweep_goes_on_without_an_image_that_fails(vendor: FakeVendor, shell: Sweeper) -> None:
    first = shell.run("buy", "--target-domain", "sketch", "--yes", cache="other.db")
    assert first.exit_code == 0, first.output
    prompts = {text_sha(f"a photo of a {name}") for name in CLASSES}
    vendor.bad_contents = {next(paid.content_sha for paid in vendor.paid.values() if paid.content_sha not in prompts)}
    before = vendor.billed_units
    refused = shell.sweep("--method", "vl2v-adip")
    assert "`sweep` take --skip-failed" in str(refused.exception)
    bought = TRAINED * VIEWS + len(CLASSES) - 1
    assert vendor.billed_units - before == bought
    done = shell.sweep("--method", "vl2v-adip", "--skip-failed")
    assert done.exit_code == 0, done.output
    assert vendor.billed_units - before == bought
    first = shell.report()
    assert first["purchase"]["images"] == TRAINED * VIEWS - 1

    vendor.bad_contents = set()
    assert shell.sweep("--method", "vl2v-adip").exit_code == 0
    assert (vendor.billed_units - before, shell.report()) == (bought, first)
    more = shell.sweep("--method", "vl2v-adip", "--seed", "0", "--seed", "1")
    assert more.exit_code == 0, more.output
    assert (vendor.billed_units - before, shell.report()["purchase"]) == (bought, first["purchase"])


def test_a_sweep_without_a_class_s_text_names_it_and_trains_nothing(vendor: FakeVendor, shell: Sweeper) -> None:
    vendor.bad_contents = {text_sha("a photo of a dog")}
    refused = shell.sweep("--method", "vl2v-adip", "--skip-failed")
    assert "there is no embedding of text 'a photo of a dog'" in str(refused.exception)
    assert not list((shell.folder / "sweep").glob("*/seed0"))


def test_a_method_s_queries_are_those_of_its_runs_own_report(shell: Sweeper) -> None:
    several = ("--views", "3", "--view-recipe", "standard")
    methods = {"erm": "ERM", "text-cosine": "text cosine", "rise-relative": "RISE relative", "vl2v-adip": "VL2V-ADiP"}
    named = [word for method in methods for word in ("--method", method)]
    done = shell.sweep("--target-domain", "sketch", *several, *named)
    assert done.exit_code == 0, done.output
    of_sweep = shell.report()["queries"]
    for method, name in methods.items():
        of_run = shell.report(f"sweep/sketch/seed0/{method}")["purchase"]
        assert of_sweep[name] == of_run["images"] + of_run["texts"], method
    assert (of_sweep["ERM"], of_sweep["text cosine"], of_sweep["RISE relative"]) == (0, len(CLASSES), len(CLASSES))
    assert of_sweep["VL2V-ADiP"] == 3 * (TRAINED * 2 // 3) + len(CLASSES)


def test_the_teacher_s_row_is_free_and_is_what_asking_about_the_targets_says(
    vendor: FakeVendor, shell: Sweeper
) -> None:
    assert shell.sweep("--method", "vl2v-adip").exit_code == 0
    found, before = shell.report()["teacher_target_in"], vendor.billed_units
    asked = {}
    for target in DOMAINS:
        run = f"sweep/{target}/seed0/vl2v-adip"
        done = shell.run("evaluate", str(shell.folder / run), "--teacher", "--yes")
        assert done.exit_code == 0, done.output
        asked[target] = shell.report(run)["rows"][0]["target_in"]
    assert found == asked
    assert vendor.billed_units == before + len(DOMAINS) * len(CLASSES) * IMAGES // 5  # the hold-outs alone were new


def test_a_run_of_a_sweep_is_that_of_a_client_who_never_bought_its_target(vendor: FakeVendor, shell: Sweeper) -> None:
    done = shell.sweep("--target-domain", "sketch", "--target-domain", "art", "--method", "vl2v-adip")
    assert done.exit_code == 0, done.output
    assert vendor.billed_units == TRAINED * VIEWS + len(CLASSES)  # sketch too: it is a source where art is the target
    common = ("--yes", *QUICK, "--target-domain", "sketch")
    alone = shell.run("distill", *common, "--out", str(shell.folder / "alone"), cache="other.db")
    assert alone.exit_code == 0, alone.output
    assert shell.student("sweep", "sketch", "seed0", "vl2v-adip") == shell.student("alone")


def test_a_run_opens_its_target_only_after_training_and_one_target_is_never_bought(
    vendor: FakeVendor, shell: Sweeper
) -> None:
    for path in (shell.data / "sketch").rglob("*.png"):
        path.write_bytes(b"reading this file fails")
    failed = shell.sweep("--target-domain", "sketch", "--method", "vl2v-adip")
    assert isinstance(failed.exception, DataError)
    assert "sketch" in str(failed.exception)
    assert vendor.billed_units == TRAINED * VIEWS * 2 // 3 + len(CLASSES)
    method = shell.folder / "sweep" / "sketch" / "seed0" / "vl2v-adip" / "methods" / "vl2v-adip"
    last = [json.loads(line) for line in (method / "metrics.jsonl").read_text().splitlines()][-1]
    assert (last["stage"], last["step"]) == ("distill", 3)


def test_a_sweep_that_was_killed_goes_on_and_may_be_widened(vendor: FakeVendor, shell: Sweeper) -> None:
    words = ("--target-domain", "photo", "--method", "vl2v-adip", "--method", "text-cosine")
    assert shell.sweep(*words).exit_code == 0
    place = ("sweep", "photo", "seed0", "text-cosine")
    before, done = shell.student(*place), vendor.billed_units
    shutil.rmtree(shell.folder.joinpath(*place))
    first = shell.folder / "sweep" / "photo" / "seed0" / "vl2v-adip" / "report.json"
    stamp = first.stat().st_mtime_ns
    assert shell.sweep(*words, "--seed", "0", "--seed", "5").exit_code == 0
    assert shell.student(*place) == before
    assert first.stat().st_mtime_ns == stamp  # a finished run is not run again
    assert shell.student("sweep", "photo", "seed5", "text-cosine") != before
    assert vendor.billed_units == done
    other = shell.sweep(*words, "--image-weight", "0.25")
    assert "--image-weight was 0.5, is 0.25" in str(other.exception)


def test_runs_on_other_splits_are_not_put_into_one_table(shell: Sweeper) -> None:
    words = ("--target-domain", "photo", "--method", "text-cosine")
    assert shell.sweep(*words).exit_code == 0
    shutil.copy(shell.data / "art" / "cat" / "0.png", shell.data / "art" / "cat" / "copy.png")
    other = shell.sweep(*words, "--seed", "0", "--seed", "1")
    assert "files_sha was" in str(other.exception)
    assert shell.sweep(*words, out="another").exit_code == 0


def test_what_was_not_in_the_purchase_is_not_bought_by_a_run(vendor: FakeVendor, shell: Sweeper) -> None:
    words = ("--target-domain", "photo", "--method", "vl2v-adip")
    original = vendor.after

    def swap(request: Any, response: Any) -> Any:  # a picture changes after the purchase, before its run
        if request.url.path.endswith("embeddings/images"):
            picture = shell.data / "art" / "cat" / "0.png"
            Image.fromarray(np.full((10, 12, 3), 7, dtype=np.uint8)).save(picture)
            Image.fromarray(np.full((10, 12, 3), 8, dtype=np.uint8)).save(shell.data / "art" / "cat" / "1.png")
        return original(request, response)

    vendor.after = swap
    refused = shell.sweep(*words)
    assert isinstance(refused.exception, RunError)
    assert "beyond the one purchase that is done" in str(refused.exception)
    assert vendor.billed_units == TRAINED * VIEWS * 2 // 3 + len(CLASSES)


def test_a_local_teacher_sweeps_online_without_a_vendor(vendor: FakeVendor, shell: Sweeper) -> None:
    spec = write_tiny_clip(shell.folder)
    local = ("--local-teacher", str(spec.config_file), "--local-weights", str(spec.checkpoint_file))
    targets = ("--target-domain", "art", "--target-domain", "photo")
    shell = Sweeper("http://nobody", shell.folder)
    done = shell.sweep(*local, "--online", "--method", "vl2v-sd", "--method", "erm", *targets)
    assert done.exit_code == 0, done.output
    report = shell.report()
    assert (vendor.billed_units, vendor.seen, report["purchase"]) == (0, [], None)
    run = shell.report("sweep/photo/seed0/vl2v-sd")
    assert report["teacher_target_in"]["photo"] == run["rows"][0]["target_in"]
    assert run["local"]["online"] is True


def test_runs_of_one_target_that_begin_together_make_the_teacher_s_answers_once(shell: Sweeper) -> None:
    spec = write_tiny_clip(shell.folder)
    purchase = PurchaseConfig(local_teacher=str(spec.config_file), local_weights=spec.checkpoint_file)
    source, asked = LocalSource(load_local_teacher(purchase, "cpu"), SessionCache()), []
    planned = source.plan(QueryChoice(shell.data, target_domain="art"), progress=silent)
    encode = source.teacher.encode_images

    def counted(pixels: Any) -> Any:
        asked.append(len(pixels))
        time.sleep(0.2)  # long enough for the other one to come
        return encode(pixels)

    source.teacher.encode_images = counted  # type: ignore[method-assign]
    shared = shell.folder / "answers"
    folders = [RunFolder(shell.folder / name, {}, {}, shared) for name in ("one", "other")]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda folder: source._image_answers(planned, folder, silent), folders))
    assert made[0] == made[1]
    assert sum(asked) == len(planned.queries.images)
    assert sorted(path.name for path in shared.iterdir()) == [".lock", made[0].name]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--method", "erm", "--method", "erm"), "a method is named twice"),
        (("--seed", "1", "--seed", "1"), "a seed is named twice"),
        (("--target-domain", "cubism"), "cubism"),
        (("--method", "magic"), '"magic" for --method. Choose from:'),
        (("--method", "erm", "--method", "vl2v-sd"), "give --local-teacher"),
        (("--method", "simkd", "--label-weight", "0.3"), "--label-weight 0.3 changes nothing in simkd: leave it out"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_bought(
    vendor: FakeVendor, shell: Sweeper, words: tuple[str, ...], complaint: str
) -> None:
    refused = shell.sweep(*words)
    assert isinstance(refused.exception, UsageError | DataError), refused.output
    assert complaint in str(refused.exception)
    assert vendor.billed_units == 0


def test_mean_and_standard_error_by_hand() -> None:
    accuracies = {("a", 0): 0.5, ("b", 0): 0.7, ("a", 1): 0.6, ("b", 1): 0.9, ("a", 2): 0.7, ("b", 2): 0.8}
    outcomes = [Outcome("M", t, s, 1.0, value, value / 2) for (t, s), value in accuracies.items()]
    row = method_rows(outcomes)[0]
    assert row.by_target["a"].mean == pytest.approx(0.6)
    assert row.worst == "a"
    assert row.by_target["a"].standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert row.mean.mean == pytest.approx(0.7)  # seeds: 0.6, 0.75, 0.75
    assert row.mean.standard_error == pytest.approx(math.sqrt(0.0075) / math.sqrt(3))
    assert method_rows(outcomes, whole_target=True)[0].mean.mean == pytest.approx(0.35)
    assert method_rows(outcomes[:2])[0].mean.standard_error is None
