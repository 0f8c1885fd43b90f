"""The house keeps its shape: no package where only a folder belongs, no file that outgrew its room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("shared", "vendor_api", "client") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("folder", ["shared", "vendor_api", "client"])
def test_the_three_folders_are_not_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_source_file_is_over_300_lines() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in SOURCES if (lines := _line_count(path)) > 300}
    assert long == {}


@pytest.mark.parametrize("package", ["vl2v_contract", "vl2v_vendor.cli", "vl2v_client.cli"])
def test_a_cold_import_loads_no_heavy_library(package: str) -> None:
    code = (
        f"import sys, {package}; "
        "heavy = {'torch', 'timm', 'open_clip', 'torchvision', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _line_count(path: Path) -> int:
    return path.read_text().count("\n")
