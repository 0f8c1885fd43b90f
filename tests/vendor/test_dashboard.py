"""The Grafana dashboard asks for what /metrics has, and the files around it find each other."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.vendor.serving_shop import images, png, running_vendor

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "vendor_api" / "observability"
SCRAPER_LABELS = {"instance", "job"}


@pytest.fixture(scope="module")
async def series(anyio_backend: str) -> dict[str, set[str]]:
    """Every sample name of /metrics after a sale and a refusal, with its labels."""

    async with running_vendor() as vendor, vendor.client() as client:
        await client.post("/v1/embeddings/images", json=images(png(), b"broken"))
        await client.get("/nowhere")
        await asyncio.sleep(0)  # a batch is counted right after its waiters were answered
        metrics = (await client.get("/metrics")).text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    return loaded


def expressions() -> list[tuple[str, str]]:
    """Each panel's title with each of its queries."""
    return [(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel["targets"]]


@pytest.mark.parametrize(("title", "expression"), expressions(), ids=[title for title, _ in expressions()])
def test_every_query_names_series_and_labels_that_exist(
    series: dict[str, set[str]], title: str, expression: str
) -> None:
    names = re.findall(r"\b(?:vl2v|ledger|process)_\w+", expression)
    assert names, expression
    assert set(names) <= set(series), title
    labels = {label for name in names for label in series[name]} | SCRAPER_LABELS
    selected = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    grouped = [name.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for name in group.split(",")]
    assert {*selected, *grouped} <= labels, title


@pytest.mark.parametrize(("title", "expression"), expressions(), ids=[title for title, _ in expressions()])
def test_every_query_is_whole_and_filters_by_server(title: str, expression: str) -> None:
    assert expression.count("(") == expression.count(")"), title
    assert expression.count("{") == expression.count("}") == expression.count('instance=~"$instance"'), title


def test_every_legend_names_labels_that_its_query_keeps() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            kept = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            labels = {name.strip() for group in kept for name in group.split(",")} - {"le"}
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= (labels or {*SCRAPER_LABELS, "lane"}), panel["title"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_what_compose_mounts_exists() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    mounted = re.findall(r"- \./(vendor_api/observability/\S+?):", compose)
    assert {ROOT / path for path in mounted} == set(FOLDER.iterdir())
