"""Write the versions of what is installed, from pyproject.toml: for the vendor's image with hashes, for tests without.

Run by `make lock` in the root of the repository:

    python scripts/lock.py deploy/requirements.txt deploy/constraints.txt

The versions are the newest that pyproject.toml allows, for Python 3.11 and newer; the constraints are those of all
extras. PyTorch, and what it needs for CUDA, is left out: the image takes it from another index, on which the same
version has other files.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)$")
HEADER = "# {what}: written by `make lock` from pyproject.toml, not by hand.\n"
IMAGE = "What the vendor's image installs beside PyTorch"
TESTS = "Versions of what all extras install beside PyTorch, for `PIP_CONSTRAINT`"


def resolve(*options: str) -> str:
    """Return the requirements of some extras and of the build, as uv writes them."""
    command = ["uv", "pip", "compile", "--no-config", "--universal", "--python-version", "3.11", "--upgrade"]
    command += ["--no-header", "--no-annotate", *options, "pyproject.toml", "-"]
    build = "\n".join(re.findall(r'requires = \["(.*?)"\]', Path("pyproject.toml").read_text()))
    done = subprocess.run(command, input=build, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout


def kept(resolved: str) -> Iterator[str]:
    """Yield the requirements that are not PyTorch's, each with its hashes if it has any."""
    for block in re.findall(r"^[a-z0-9][^\n]*\n(?: {4}--hash[^\n]*\n)*", resolved, re.MULTILINE):
        if not LEFT_OUT.match(block.partition("==")[0]):
            yield block


def main() -> None:
    image, tests = map(Path, sys.argv[1:])
    write(image, IMAGE, resolve("--extra", "vendor", "--generate-hashes"))
    write(tests, TESTS, resolve("--all-extras"))


def write(target: Path, what: str, resolved: str) -> None:
    blocks = list(kept(resolved))
    target.write_text(HEADER.format(what=what) + "".join(blocks))
    print(f"{target}: {len(blocks)} packages")


if __name__ == "__main__":
    main()
