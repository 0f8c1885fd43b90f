"""Print the lowest versions that pyproject.toml allows, one constraint a line, for some of its extras.

    python scripts/lowest_versions.py vendor client local >lowest.txt

`make test-lowest` installs these and runs the tests. The lower bounds of extras that it does not name are untested.
Packages that only dependencies name are pip's choice.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in sys.argv[1:] for line in extras[extra])]
    print("\n".join(sorted({lowest(line) for line in wanted})))


def lowest(requirement: str) -> str:
    """The requirement with its lower bound as its only version, without extras, which a constraint cannot have."""
    return re.sub(r"(\[.*\])?>=([^,]+).*", r"==\2", requirement)


if __name__ == "__main__":
    main()
