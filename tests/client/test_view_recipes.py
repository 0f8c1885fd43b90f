"""Which views a recipe chooses, and that styled ones replay like all others."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vl2v_client.core.values import Sample
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.styles import STYLES
from vl2v_client.data.views import VIEW_RECIPES, View, canonical_view, styled_views, views_for
from vl2v_client.planning.queries import pixels_sha
from vl2v_contract.identity import canonical_json, sha256_hex

NAME = "ab" * 32
DRAWN = {
    "standard": "cb243ef7ae23448a",
    "published": "a27dc907f9d7c3d0",
    "styles": "7353378451b11b83",
    "all-styles": "413ba2eb355a7290",
    "drawn": "c2c07582cbec2602",
}


def test_a_standard_view_keeps_the_name_it_had_before_there_were_styles() -> None:
    view = views_for(NAME, (40, 30), 2, seed=1)[1]
    assert "style" not in view.to_json()
    assert "style_strength" not in view.to_json()
    assert views_for(NAME, (40, 30), 9, seed=1) == views_for(NAME, (40, 30), 9, seed=1, recipe="standard")


def test_styles_follow_the_canonical_view_by_turns() -> None:
    plain, styled = (views_for(NAME, (40, 30), 9, seed=1, recipe=name) for name in ("standard", "styles"))
    assert styled[0] == canonical_view()
    assert [view.style is not None for view in styled] == [False, False, True, False, True, False, True, False, True]
    assert styled_views(9, "styles") == (2, 4, 6, 8)
    assert styled[1::2] == plain[1::2]  # bought once for both recipes
    assert views_for(NAME, (40, 30), 4, seed=1, recipe="styles") == styled[:4]


def test_all_styles_leaves_the_canonical_view_alone() -> None:
    views = views_for(NAME, (40, 30), 5, seed=1, recipe="all-styles")
    assert views[0] == canonical_view()
    assert styled_views(5, "all-styles") == (1, 2, 3, 4)
    assert all(view.style for view in views[1:])
    assert styled_views(5, "standard") == ()


@pytest.mark.parametrize("recipe", VIEW_RECIPES)
def test_no_view_and_one_view_are_the_same_in_every_recipe(recipe: str) -> None:
    assert views_for(NAME, (40, 30), 0, seed=3, recipe=recipe) == []
    assert views_for(NAME, (40, 30), 1, seed=3, recipe=recipe) == [canonical_view()]
    assert styled_views(1, recipe) == ()


def test_every_style_and_strength_is_drawn_about_as_often() -> None:
    views = views_for(NAME, (40, 30), 1801, seed=0, recipe="all-styles")[1:]
    styles = Counter(view.style for view in views)
    assert set(styles) == set(STYLES) - {"toon"}
    assert all(240 < count < 360 for count in styles.values())
    for name in styles:
        least, most = STYLES[name].strengths
        assert {view.style_strength for view in views if view.style == name} == set(range(least, most + 1))
    assert {view.hue for view in views if view.style != "shuffle"} == {0}
    assert len({view.hue for view in views if view.style == "shuffle"}) > 100


def test_four_drawn_views_in_ten_are_cartoons_some_in_other_colours_or_in_none() -> None:
    views = views_for(NAME, (40, 30), 1801, seed=0, recipe="drawn")[1:]
    assert {view.style for view in views} == set(STYLES)
    toons = [view for view in views if view.style == "toon"]
    assert 650 < len(toons) < 790
    assert {view.style_strength for view in toons} == set(range(4, 11))
    assert all(1000 <= view.saturation <= 2200 for view in toons)
    assert 0.35 < sum(view.hue != 0 for view in toons) / len(toons) < 0.45
    assert 0.15 < sum(view.grayscale for view in toons) / len(toons) < 0.25


def test_the_published_recipe_turns_hues_further() -> None:
    plain, published = (views_for(NAME, (40, 30), 300, seed=0, recipe=name) for name in ("standard", "published"))
    assert max(abs(view.hue) for view in plain) <= 50
    assert 250 < max(abs(view.hue) for view in published) <= 300


def test_json_names_the_style() -> None:
    assert View(style="ink", style_strength=20).to_json() == {"style": "ink", "style_strength": 20}


REPLAY = """
import os
import sys
from pathlib import Path
from vl2v_client.core.values import Sample
from vl2v_client.data.view_pixels import ViewPixels
from vl2v_client.planning.queries import pixels_sha
from vl2v_client.data.views import views_for
folder, workers = Path(sys.argv[1]), int(sys.argv[2])
samples = [Sample(path, "art", 0) for path in sorted((folder / "data").iterdir(), reverse=True)]
views = [views_for(sample.path.stem * 32, (57, 41), 15, seed=5, recipe="all-styles") for sample in samples]
os.cpu_count = lambda: workers
pixels = ViewPixels(samples, views, 48)
of_view = [pixels[:, view] for view in range(15)]
for row, sample in enumerate(samples):
    print(sample.path.stem, *[pixels_sha(of_one[row]) for of_one in of_view])
"""


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_another_process_with_any_number_of_workers_replays_every_view(workers: int, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    samples = []
    for index in range(4):
        path = tmp_path / "data" / f"{index:02d}.png"
        Image.fromarray(rng.integers(0, 256, (41, 57, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, "art", 0))
    views = [views_for(sample.path.stem * 32, (57, 41), 15, seed=5, recipe="all-styles") for sample in samples]
    here = {}
    for sample, of_one in zip(samples, views, strict=True):
        image = load_rgb(sample.path)
        here[sample.path.stem] = [pixels_sha(render_view(image, view, 48)) for view in of_one]
    assert len({sha for shas in here.values() for sha in shas}) > 50
    words = [sys.executable, "-c", REPLAY, str(tmp_path), str(workers)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    there = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines()}
    assert there == here


@pytest.mark.parametrize(("recipe", "sha"), DRAWN.items())
def test_what_is_drawn_is_for_ever(recipe: str, sha: str) -> None:
    views = [view.to_json() for view in views_for(NAME, (640, 480), 9, seed=7, recipe=recipe)]
    assert sha256_hex(canonical_json(views))[:16] == sha  # another draw would have to be bought again
