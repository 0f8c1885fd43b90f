"""The runner of the fuzzing: it goes on where it was killed, keeps what finds something, and names what it died of."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.fuzz.mutation import mutate_bytes, mutate_json, to_json
from support.fuzz.record import LARGEST_KEPT, Record
from support.fuzz.subject import Fault, OneByOne, case_dice
from support.fuzz.subjects import CLASSES, FuzzClass
from support.fuzz.worker import Order, _note_death, work


class Numbers(OneByOne):
    """Numbers, of which 13 is wrong and 14 raises."""

    tried: Sequence[bytes] = ()

    def make(self, dice: random.Random) -> bytes:
        return str(dice.randrange(20)).encode()

    def check(self, case: bytes) -> str:
        Numbers.tried = [*Numbers.tried, case]
        if case == b"13":
            raise Fault("thirteen")
        return str(1 / (int(case) - 14) > 0)


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    monkeypatch.setitem(CLASSES, "numbers", FuzzClass(100, lambda _pictures: Numbers()))
    monkeypatch.setattr(Numbers, "tried", [])
    (tmp_path / "numbers.at").touch()
    return Order("numbers", 100, 3, tmp_path, tmp_path / "corpus")


def test_a_run_goes_on_where_the_last_one_ended(order: Order) -> None:
    work(Order(order.name, 40, order.seed, order.folder, order.corpus))
    first = list(Numbers.tried)
    work(order)
    assert len(first) == 40
    assert len(Numbers.tried) == 100
    assert list(Numbers.tried) == [Numbers().make(case_dice(3, "numbers", number)) for number in range(100)]
    record = Record.read(order.record, order.seed)
    assert (record.done, sum(record.outcomes.values())) == (100, 100)


def test_what_finds_something_is_named_and_kept(order: Order) -> None:
    work(order)
    record = Record.read(order.record, order.seed)
    wrong = [number for number, case in enumerate(Numbers.tried) if case in (b"13", b"14")]
    assert sorted(map(int, record.found)) == wrong
    assert {told.split(":")[0] for told in record.found.values()} == {"thirteen", "ZeroDivisionError"}
    assert sorted(path.read_bytes() for path in (order.corpus / "numbers").iterdir()) == sorted(
        Numbers.tried[number] for number in wrong
    )


def test_another_seed_begins_anew(order: Order) -> None:
    work(order)
    assert Record.read(order.record, order.seed + 1).done == 0


def test_an_input_that_ends_the_process_is_named_and_left_behind(order: Order) -> None:
    order.place.write_text("41")
    _note_death(order, "its process ended with -11")
    record = Record.read(order.record, order.seed)
    assert (record.done, record.found) == (42, {"41": "its process ended with -11"})
    assert (order.corpus / "numbers" / "3-41").read_bytes() == Numbers().make(case_dice(3, "numbers", 41))


def test_the_same_number_makes_the_same_input() -> None:
    value = {"items": [{"text": "a dog", "item_key": None}], "truncate": False, "price_id": 1}

    def made(number: int) -> bytes:
        dice = case_dice(1, "json", number)
        return mutate_bytes(to_json(mutate_json(value, dice), dice), dice)

    inputs = [made(number) for number in range(200)]
    assert inputs == [made(number) for number in range(200)]
    assert len(set(inputs)) > 150
    assert value == json.loads(json.dumps(value))


def test_a_large_input_is_not_kept(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Numbers, "make", lambda _self, _dice: b"13" * LARGEST_KEPT)
    monkeypatch.setattr(Numbers, "check", lambda _self, _case: (_ for _ in ()).throw(Fault("large")))
    work(order)
    assert len(Record.read(order.record, order.seed).found) == 100
    assert not order.corpus.exists()
