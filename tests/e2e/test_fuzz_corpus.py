"""What fuzzing once found, tried again; and a few new inputs of each class, of which nothing may be wrong.

`benchmarks/fuzz.py` tries 100,000 of each, and writes what it finds into the corpus.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fuzz.subject import Fault, case_dice
from support.fuzz.subjects import CLASSES
from support.fuzz.vendor_requests import WRITERS

CORPUS = Path(__file__).parents[1] / "fixtures" / "corpus"
NEW = 25


@pytest.mark.parametrize("names", [tuple(WRITERS), *((name,) for name in CLASSES if name not in WRITERS)])
def test_what_was_once_found_and_new_inputs_are_dealt_with(names: tuple[str, ...]) -> None:
    """Requests of all forms and acts of the staff go to one vendor."""
    subject = CLASSES[names[0]].open(None)
    for name in names:
        known = sorted((CORPUS / name).iterdir())
        make = WRITERS.get(name, subject.make)
        cases = {path.name: path.read_bytes() for path in known}
        cases |= {str(number): make(case_dice(0, name, number)) for number in range(NEW)}
        assert len(cases) > NEW
        outcomes = zip(cases, subject.try_all(list(cases.values())), strict=True)
        assert {which: str(one) for which, one in outcomes if isinstance(one, Fault)} == {}
    assert subject.finish() == []


def test_the_corpus_is_of_these_classes_and_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(CLASSES)
    assert sum(path.stat().st_size for path in files) < 500_000
