"""Which release this is."""

from __future__ import annotations

import importlib.metadata


def installed_version() -> str:
    """The distribution's version, or `unknown` when the code runs from a checkout that was never installed."""
    try:
        return importlib.metadata.version("vl2v")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
