"""What `make test-docs` runs: it takes minutes, and the site needs the extra `docs`."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def minutes(request: pytest.FixtureRequest) -> None:
    """Skip what takes minutes, unless `--pages` is given."""
    if not request.config.getoption("--pages"):
        pytest.skip("`make test-docs` runs the commands and programs of the pages")
