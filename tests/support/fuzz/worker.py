"""The process that tries inputs, and the one that watches it: a crash or a hang is a finding, and the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.fuzz.record import Record, keep, make_case, resident_bytes, spent_seconds
from support.fuzz.subject import Fault, Subject
from support.fuzz.subjects import CLASSES

HANG_SECONDS = 120.0
"""Without another input begun; whole batches of raw HTTP take seconds."""
_WRITE_SECONDS = 1.0
_SAMPLES = 100
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Order:
    """What is to be tried.

    Attributes:
        count: numbers below it.
        folder: of records.
        corpus: folder into which go inputs that find something.
        pictures: folder of one's own pictures, or None.
    """

    name: str
    count: int
    seed: int
    folder: Path
    corpus: Path
    pictures: Path | None = None

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def place(self) -> Path:
        """The file with the number of the input that is tried now."""
        return self.folder / f"{self.name}.at"

    def words(self) -> list[str]:
        return [self.name, str(self.count), str(self.seed), *map(str, (self.folder, self.corpus, self.pictures or ""))]

    @classmethod
    def of(cls, words: list[str]) -> Order:
        name, count, seed, folder, corpus, pictures = words
        return cls(name, int(count), int(seed), Path(folder), Path(corpus), Path(pictures) if pictures else None)


def run_class(order: Order) -> Record:
    """Try all inputs of an order that were not tried yet; a process that dies or hangs is replaced by the next."""
    order.folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    while (record := Record.read(order.record, order.seed)).done < order.count:
        order.place.write_text("")
        with (order.folder / f"{order.name}.log").open("ab") as log:
            words = [sys.executable, "-m", __name__, *order.words()]
            worker = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        if (why := _watch(worker, order)) is not None:
            _note_death(order, why)
    return record


def _watch(worker: subprocess.Popen[bytes], order: Order) -> str | None:
    """Wait for a worker's end; None if it was a good one."""
    seen, since = "", time.monotonic()
    while worker.poll() is None:
        time.sleep(_POLL_SECONDS)
        if (now := order.place.read_text()) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > HANG_SECONDS:
            worker.kill()
            worker.wait()
            return f"no end within {HANG_SECONDS:g} seconds"
    return None if worker.returncode == 0 else f"its process ended with {worker.returncode}"


def _note_death(order: Order, why: str) -> None:
    told = order.place.read_text()
    if not told:
        sys.exit(f"{order.name} could not be begun: {why}; see {order.folder / order.name}.log")
    record, first = Record.read(order.record, order.seed), int(told)
    subject = CLASSES[order.name].open(order.pictures)
    for number in range(first, first + subject.together):
        keep(order.corpus, order.name, order.seed, number, make_case(subject.make, order.seed, order.name, number))
    record.found[str(first)] = why if subject.together == 1 else f"{why}: one of {subject.together} inputs from this on"
    record.done = first + subject.together
    subject.finish()
    record.write(order.record)


def work(order: Order) -> None:
    """Try inputs one after the other, from where the record ends, as long as whoever began it is there."""
    record, parent = Record.read(order.record, order.seed), os.getppid()
    subject = CLASSES[order.name].open(order.pictures)
    outcomes, record.resident = Counter(record.outcomes), []
    began, spent, written = record.seconds, spent_seconds(), 0.0
    every = max(1, (order.count - record.done) // _SAMPLES)
    with order.place.open("r+") as place:
        while record.done < order.count and os.getppid() == parent:
            numbers = range(record.done, min(order.count, record.done + subject.together))
            place.seek(0)
            place.write(f"{numbers[0]:<20}")
            place.flush()
            _try(order, subject, numbers, outcomes, record)
            record.done = numbers[-1] + 1
            if record.done % every < subject.together:
                record.resident.append((record.done, resident_bytes()))
            if time.monotonic() - written > _WRITE_SECONDS or record.done == order.count:
                record.outcomes, record.seconds = dict(outcomes), began + spent_seconds() - spent
                if record.done < order.count:  # the last word comes after the bill
                    record.write(order.record)
                written = time.monotonic()
    for fault in subject.finish():
        record.found[f"after {record.done}"] = str(fault)
    record.seconds = began + spent_seconds() - spent
    record.write(order.record)


def _try(order: Order, subject: Subject, numbers: range, outcomes: Counter[str], record: Record) -> None:
    cases = [make_case(subject.make, order.seed, order.name, number) for number in numbers]
    for number, case, outcome in zip(numbers, cases, subject.try_all(cases), strict=True):
        if isinstance(outcome, Fault):
            outcomes["FAULT"] += 1
            record.found[str(number)] = str(outcome)[:1000]
            keep(order.corpus, order.name, order.seed, number, case)
        else:
            outcomes[outcome] += 1


def try_again(name: str, case: bytes, pictures: Path | None = None) -> dict[str, str]:
    """Try one input by itself; returns how it ended, for people."""
    subject = CLASSES[name].open(pictures)
    [outcome] = subject.try_all([case])
    faults = [str(fault) for fault in subject.finish()]
    return {"outcome": str(outcome), "is_fault": str(isinstance(outcome, Fault)), "afterwards": json.dumps(faults)}


if __name__ == "__main__":
    work(Order.of(sys.argv[1:]))
