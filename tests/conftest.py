"""Options of the whole suite."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)  # a busy machine is no failure; pytest's time limit still holds
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="Run the proofs of the bill at full length: many minutes.")
    parser.addoption("--cluster", action="store_true", help="Run sweeps of eight runs on every engine: minutes.")
    parser.addoption("--screenshots", metavar="FOLDER", help="Keep a picture of each page that a browser is shown.")
    parser.addoption("--pages", action="store_true", help="Run what the pages say, and build the site: minutes.")
    parser.addoption("--write-edits", action="store_true", help="Write the table of edits of a ledger, with --full.")
    parser.addoption("--compose", action="store_true", help="Build images and run containers: half an hour.")
    parser.addoption("--figures", metavar="FILE", help="Write the figures of the proofs of the bill to a JSON file.")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of tests that are coroutines: both sides run on asyncio alone."""
    return "asyncio"
