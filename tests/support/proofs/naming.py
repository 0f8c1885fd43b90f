"""Which tests pytest collects only when they are named."""

from __future__ import annotations

from pathlib import Path

import pytest


def is_named(folder: Path, config: pytest.Config) -> bool:
    """Return whether the command line names this folder, or something in it."""
    named = ((config.invocation_params.dir / word.split("::")[0]).resolve() for word in config.args)
    return any(path == folder or folder in path.parents for path in named)
