"""The classes of input by name, and how many of each a full run tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.fuzz.subject import Subject


@dataclass(frozen=True)
class FuzzClass:
    """One class of input.

    Attributes:
        count: how many a full run tries.
        open: begins; the argument is a folder of pictures of one's own, if there is one.
    """

    count: int
    open: Callable[[Path | None], Subject]


def _of_the_vendor(name: str) -> Callable[[Path | None], Subject]:
    def begin(_pictures: Path | None) -> Subject:
        from support.fuzz import vendor_requests
        from support.fuzz.vendor_subject import VendorSubject

        return VendorSubject(vendor_requests.WRITERS[name])

    return begin


def _pictures(pictures: Path | None) -> Subject:
    from support.fuzz.content_subjects import Pictures

    return Pictures(pictures)


def _texts(_pictures: Path | None) -> Subject:
    from support.fuzz.content_subjects import Texts

    return Texts()


def _cards(_pictures: Path | None) -> Subject:
    from support.fuzz.client_subjects import Cards

    return Cards()


def _answers(_pictures: Path | None) -> Subject:
    from support.fuzz.client_subjects import Answers

    return Answers()


def _raw_http(_pictures: Path | None) -> Subject:
    from support.fuzz.raw_http import RawHttp

    return RawHttp()


CLASSES = {
    "json": FuzzClass(100_000, _of_the_vendor("json")),
    "multipart": FuzzClass(100_000, _of_the_vendor("multipart")),
    "frames": FuzzClass(100_000, _of_the_vendor("frames")),
    "admin": FuzzClass(100_000, _of_the_vendor("admin")),
    "cards": FuzzClass(100_000, _cards),
    "answers": FuzzClass(100_000, _answers),
    "texts": FuzzClass(100_000, _texts),
    "pictures": FuzzClass(20_000, _pictures),
    "raw-http": FuzzClass(20_000, _raw_http),
}
"""Requests in three forms, acts of the staff, students' cards, vendors' answers, texts, pictures, raw HTTP."""
