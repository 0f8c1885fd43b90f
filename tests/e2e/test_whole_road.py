"""The bill equals the plan, a second run costs nothing, and every step works as its own command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from support.vendor.live_parties import Client, Vendor

STEPS = ("--align-steps", "20", "--distill-steps", "20", "--evaluate-every", "10", "--batch-size", "4")
QUICK = (*STEPS, "--no-probe")


def test_the_bill_equals_the_plan_and_the_second_run_is_free(
    shared_vendor: Vendor, new_client: Callable[..., Client], shapes: Path, tmp_path: Path
) -> None:
    client = new_client(shared_vendor)
    data = ("--data", shapes, "--target-domain", "sketch", "--views", "2")
    plan = json.loads(client.run("plan", *data, "--json").out)
    distill = ("distill", *data, "--out", tmp_path / "run", "--yes", *QUICK)

    first = client.run(*distill)
    assert first.code == 0, first.err
    assert client.used_units() == plan["new_queries"] == 40 * 2 + 4

    requests_before = _embedding_requests(client)
    second = client.run(*distill)
    assert second.code == 0, second.err
    assert second.out == first.out
    assert _embedding_requests(client) == requests_before
    assert client.used_units() == plan["new_queries"]
    audit = client.run("audit", "--json")
    assert (audit.code, json.loads(audit.out)["matched"]) == (0, plan["new_queries"])
    assert client.run("cache", "verify").code == 0


def test_a_run_leaves_everything_that_the_readme_promises(
    shared_vendor: Vendor, new_client: Callable[..., Client], shapes: Path, tmp_path: Path
) -> None:
    client, run = new_client(shared_vendor), tmp_path / "run"
    words = ("distill", "--data", shapes, "--target-domain", "photo", "--views", "1", "--out", run, "--yes")
    words = (*words, "--baseline", "erm", *QUICK)
    done = client.run(*words)
    assert done.code == 0, done.err
    for name in ("config.json", "report.md", "report.json", "student/student.safetensors", "student/student.json"):
        assert (run / name).stat().st_size > 0, name
    assert (run / "methods" / "vl2v-adip" / "metrics.jsonl").read_text().count("\n") >= 4
    report = json.loads((run / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == [
        "zero-shot teacher",
        "chance",
        "majority class",
        "ERM",
        "VL2V-ADiP",
    ]

    before = client.used_units()
    evaluated = client.run("evaluate", run, "--json")
    assert evaluated.code == 0, evaluated.err
    by_domain = {score["domain"]: score["student"] for score in json.loads(evaluated.out)}
    assert by_domain["photo"] == report["rows"][-1]["target"]
    assert client.used_units() == before

    asked = client.run("evaluate", run, "--teacher", "--yes")
    assert asked.code == 0, asked.err
    assert client.used_units() == before + 24
    teacher_row = json.loads((run / "report.json").read_text())["rows"][0]
    assert teacher_row["target"] is not None
    assert client.run(*words).code == 0
    assert json.loads((run / "report.json").read_text())["rows"][0] == teacher_row

    predicted = client.run("predict", run, shapes / "photo" / "fish")
    assert predicted.out.splitlines()[0] == "path,class,probability,error"
    assert len(predicted.out.splitlines()) == 7


def test_a_plain_folder_works_and_says_that_generalisation_was_not_measured(
    shared_vendor: Vendor, new_client: Callable[..., Client], shapes: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(shapes / "cartoon", plain)
    client = new_client(shared_vendor)
    student = ("--student", "tiny")  # the copy does not say that it is drawn
    done = client.run("distill", "--data", plain, *student, "--views", "1", "--out", tmp_path / "run", "--yes", *QUICK)
    assert done.code == 0, done.err
    assert "Generalisation was not measured" in (tmp_path / "run" / "report.md").read_text()


def test_a_renamed_copy_of_the_data_costs_nothing(
    shared_vendor: Vendor, new_client: Callable[..., Client], shapes: Path, tmp_path: Path
) -> None:
    client = new_client(shared_vendor)
    assert client.run("buy", "--data", shapes, "--target-domain", "sketch", "--views", "1", "--yes").code == 0
    copy = tmp_path / "renamed"
    shutil.copytree(shapes, copy)
    for path in sorted(copy.rglob("*.png")):
        path.rename(path.with_name(f"again-{path.name}"))
    plan = json.loads(client.run("plan", "--data", copy, "--target-domain", "sketch", "--views", "1", "--json").out)
    assert plan["new_queries"] == 0


def _embedding_requests(client: Client) -> int:
    log = (client.vendor.home.parent / f"{client.vendor.home.name}.log").read_text()
    return sum("POST /v1/embeddings" in line for line in log.splitlines())
