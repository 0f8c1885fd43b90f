"""What to install where a package of an optional part is missing."""

import re
import shlex
from importlib import metadata

from vl2v_client.core.errors import UsageError


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra.

    It names the packages and never `vl2v` itself: an index may hold none, or another one of that name. So it is right
    for a checkout and for an installed wheel.
    """
    try:
        required = metadata.requires("vl2v") or []
    except metadata.PackageNotFoundError:  # a checkout on the path that was never installed
        required = []
    parts = [one.partition(";") for one in required]
    marked = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    packages = [name.replace(" ", "") for name, _, marker in parts if marked.search(marker)]
    if not packages:
        return f"pip install -e '.[{extra}]' in the folder of its pyproject.toml"
    return shlex.join(["pip", "install", *packages])


def missing_package(error: ImportError, extra: str) -> UsageError:
    """Return what to raise for a package that is not installed and belongs to an extra."""
    name = (error.name or str(error)).partition(".")[0]
    return UsageError(f"the package {name} is not installed, of the extra `{extra}`: {install_command(extra)}")
