"""Write the versions and hashes of what the vendor's image installs, from pyproject.toml.

Run by `make lock` in the root of the repository:

    python scripts/lock.py deploy/requirements.txt

The versions are the newest that pyproject.toml allows, for Python 3.11 and newer. PyTorch, and what it needs for CUDA,
is left out: the image takes it from another index, on which the same version has other files.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)$")
HEADER = """# What the vendor's image installs beside PyTorch: written by `make lock` from pyproject.toml, not by hand.
"""


def resolve() -> str:
    """Return the requirements of the extra `vendor` and of the build, with hashes, as uv writes them."""
    command = ["uv", "pip", "compile", "--no-config", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--upgrade", "--no-header", "--no-annotate", "--extra", "vendor", "pyproject.toml", "-"]
    build = "\n".join(re.findall(r'requires = \["(.*?)"\]', Path("pyproject.toml").read_text()))
    done = subprocess.run(command, input=build, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout


def kept(resolved: str) -> Iterator[str]:
    """Yield the requirements that are not PyTorch's, each with its hashes."""
    for block in re.findall(r"^[a-z0-9][^\n]*\\\n(?: {4}--hash[^\n]*\n)+", resolved, re.MULTILINE):
        if not LEFT_OUT.match(block.partition("==")[0]):
            yield block


def main() -> None:
    target = Path(sys.argv[1])
    blocks = list(kept(resolve()))
    target.write_text(HEADER + "".join(blocks))
    print(f"{target}: {len(blocks)} packages")


if __name__ == "__main__":
    main()
