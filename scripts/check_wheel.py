"""Build the source distribution and the wheel, and see that the wheel works where nothing but its files are ours.

    python scripts/check_wheel.py [--out dist] [--download]

The wheel is built from the source distribution, so that neither lacks a file that the other has. It is installed in
a new virtual environment, which takes the dependencies from the environment of this program; with `--download` it
takes them from the package index, as a user's does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = [ROOT / folder for folder in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sdist, wheel = build(arguments.out.resolve() if arguments.out else work / "dist")
        compare_contents(sdist, wheel)
        python = install(wheel, work / "venv", download=arguments.download)
        try_out(python, work)
    print(f"{wheel.name} and {sdist.name}: complete, and the wheel works in an environment of its own")


def build(out: Path) -> tuple[Path, Path]:
    """Build both with the tools of this environment; return the source distribution and the wheel."""
    words = [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"neither was built:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    version = PROJECT["project"]["version"]
    return out / f"vl2v-{version}.tar.gz", out / f"vl2v-{version}-py3-none-any.whl"


def compare_contents(sdist: Path, wheel: Path) -> None:
    """Compare the wheel with the files of the repository, and look that no other folder is in either."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {entry for entry in archive.namelist() if ".dist-info/" not in entry}
    files = {
        str(path.relative_to(folder.parent))
        for folder in FOLDERS
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not ignored(path)
    }
    if packed != files:
        sys.exit(f"{wheel.name} lacks {sorted(files - packed)}, and has {sorted(packed - files)} besides")
    with tarfile.open(sdist) as archive:
        tops = {entry.split("/")[1] for entry in archive.getnames() if "/" in entry}
    known = {"shared", "vendor_api", "client", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO"}
    if not tops <= known | {".gitignore"}:
        sys.exit(f"{sdist.name} holds {sorted(tops - known)} besides the three folders")


def ignored(path: Path) -> bool:
    """Tell whether git ignores a file."""
    return subprocess.run(["git", "check-ignore", "--quiet", str(path)], cwd=ROOT, check=False).returncode == 0


def install(wheel: Path, folder: Path, *, download: bool) -> Path:
    """Install the wheel in a new environment, and return its Python."""
    venv.create(folder, with_pip=download)
    python = folder / "bin" / "python"
    if download:
        run(str(python), "-m", "pip", "install", "--quiet", f"{wheel}[vendor,client]")
        return python
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    Path(site.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not read
    words = ["install", "--quiet", "--no-deps", "--disable-pip-version-check", str(wheel)]
    run(sys.executable, "-m", "pip", "--python", str(python), *words)
    return python


def try_out(python: Path, work: Path) -> None:
    """Call both programs and import every package, far from the repository."""
    version = PROJECT["project"]["version"]
    for program in ("vl2v-client", "vl2v-vendor"):
        command = str(python.with_name(program))
        run(command, "--help", cwd=work)
        if version not in run(command, "--version", cwd=work):
            sys.exit(f"{program} --version does not say {version}")
    for folder in FOLDERS:
        place = run(str(python), "-c", f"import {folder.name} as it; print(it.__file__)", cwd=work)
        if not Path(place.strip()).is_relative_to(work.resolve()):
            sys.exit(f"{folder.name} was imported from {place.strip()}, not from the wheel")


def run(*words: str, cwd: Path | None = None) -> str:
    """Run a command without the paths of this environment, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where both are kept; nowhere if left out")
    parser.add_argument("--download", action="store_true", help="take the dependencies from the package index")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
