"""What earlier versions had is refused by name, version and replacement, whatever the command; what stays is not."""

from __future__ import annotations

import re

import pytest

from vl2v_client.cli.app import REMOVED_OPTIONS, REMOVED_VALUES, refuse_removed, run
from vl2v_client.core.errors import UsageError

REMOVED = [(option, "x") for option in REMOVED_OPTIONS]
REMOVED += [(option, value) for option, values in REMOVED_VALUES.items() for value in values]


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "with an equals sign"])
@pytest.mark.parametrize(("option", "value"), REMOVED)
@pytest.mark.parametrize("command", ["plan", "buy", "distill", "sweep"])
def test_a_removed_option_or_value_exits_2_and_names_version_and_replacement(
    capsys: pytest.CaptureFixture[str], command: str, option: str, value: str, joined: bool
) -> None:
    words = [f"{option}={value}"] if joined else [option, value]
    assert run([command, "--data", "nowhere", *words]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"{option}( {value})? was removed in version 0\.2\.0: .*(leave it out|use --)", shown), shown


def test_the_replacements_and_values_that_stay_are_not_refused() -> None:
    for words in (
        ["distill", "--select", "random", "--impute", "ridge", "--carry", "swad"],
        ["distill", "--select=k-center", "--impute=none", "--carry=ema"],
        ["evaluate", "knn", "--data", "herding"],
    ):
        refuse_removed(words)
    refuse_removed([])
    with pytest.raises(UsageError, match="--carry iidmax was removed"):
        refuse_removed(["distill", "--data", "x", "--carry", "iidmax"])
