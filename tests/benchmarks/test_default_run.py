"""What the page of presets says of the default's time is what a run of it took."""

import json
import re
from pathlib import Path

from default_run import rows_of

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "default_run.json").read_text())


def test_the_page_s_figures_are_the_result_s() -> None:
    page = " ".join((ROOT / "docs" / "methods" / "presets.md").read_text().split())
    (goal,) = RESULT["goals"]
    (photographs,) = re.findall(r"seconds, (\d+) photographs", goal["name"])
    limit = goal["goal"].removeprefix("<= ")
    assert f"took {goal['value']} seconds on {photographs} photographs, where {limit} were the goal" in page
    reached = {row[""]: row["source_validation"] for row in RESULT["rows"]}
    assert "VL2V-ADiP had {VL2V-ADiP} % on source validation".format(**reached) in page
    assert f"the probe on labels alone {reached['ridge probe']}, so that the probe was exported" in page
    assert float(reached["ridge probe"]) > float(reached["VL2V-ADiP"])
    assert "tf_efficientnet_lite0 at 224 px" in RESULT["notes"][-1]
    assert RESULT["notes"][-1].endswith("float32.")


def test_a_row_without_a_figure_is_left_out() -> None:
    rows = [
        {"name": "zero-shot teacher", "source_validation": None, "target": None},
        {"name": "VL2V-ADiP", "source_validation": 0.5, "target": None},
    ]
    assert rows_of({"rows": rows}) == [{"": "VL2V-ADiP", "source_validation": "50.0"}]
