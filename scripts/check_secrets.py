"""Find secrets in the files of the repository: none, or each exception named with its reason in pyproject.toml.

`make check` runs it. It reads files and asks nobody: detect-secrets' verification, which asks the services whether a
found key works, is not among its default filters. Run it in the root of the repository.
"""

import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings, get_settings

SUFFIXES_OF_DATA = {".png", ".safetensors", ".sqlite", ".svg", ".xz"}


API_KEY = re.compile(r"\bvl2v_[\w-]{43}")
"""An API key of a vendor; unlike detect-secrets, we want it without quotes too."""


def listed_files(root: Path) -> Iterator[str]:
    """Yield the text files that git knows or would take in; in an unpacked archive, all that are not hidden."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    names = listed.stdout.split("\0")
    if listed.returncode != 0:
        names = [str(path.relative_to(root)) for path in root.rglob("*")]
        names = [name for name in names if "/." not in f"/{name}"]
    for name in names:
        if (root / name).is_file() and Path(name).suffix not in SUFFIXES_OF_DATA:
            yield name


def find_secrets(root: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Return what looks like a secret, by file: line and kind."""
    found: dict[str, list[str]] = defaultdict(list)
    with default_settings():
        # Hashes are hex, and the tests are full of them; no secret of ours is.
        get_settings().disable_plugins("HexHighEntropyString")
        for name in names:
            for secret in scan_file(str(root / name)):
                found[name].append(f"line {secret.line_number}: {secret.type}")
            for number, line in enumerate((root / name).read_text(errors="replace").splitlines(), start=1):
                if API_KEY.search(line):
                    found[name].append(f"line {number}: an API key of a vendor")
    return found


def faults(found: Mapping[str, list[str]], allowed: Mapping[str, str]) -> list[str]:
    """Return what is found and not allowed, and what is allowed and not found any more."""
    unknown = [f"{name}, {one}" for name in sorted(found.keys() - allowed.keys()) for one in found[name]]
    stale = [f"{name}: nothing is found there; delete its exception" for name in sorted(allowed.keys() - found.keys())]
    return unknown + stale


def main() -> int:
    """Print each fault; exit code 1 if there is one."""
    root = Path.cwd()
    allowed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["check-secrets"]["allowed"]
    lines = faults(find_secrets(root, listed_files(root)), allowed)
    print("\n".join(lines) or f"no secrets ({len(allowed)} exceptions, each with its reason in pyproject.toml)")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
