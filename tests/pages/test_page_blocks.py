"""Every command and program of a page runs as it stands there, or a comment says why the tests do not run it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_blocks import SHELL, Block, blocks_of

from support.page_sandbox import Sandbox

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LEFT_OUT = [(page, block) for page in PAGES for block in blocks_of(page, *SHELL, "python") if block.reason]
WITH_COMMANDS = [page for page in PAGES if any(not block.reason for block in blocks_of(page, *SHELL))]
WITH_PYTHON = [page for page in PAGES if any(not block.reason for block in blocks_of(page, "python"))]
pytestmark = pytest.mark.timeout(600)
NEEDED = {"openai": "from openai import"}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def sandbox(minutes: None, tmp_path: Path) -> Iterator[Sandbox]:
    place = Sandbox(tmp_path)
    try:
        place.open_shop()
        yield place
    finally:
        place.close()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=_name)
def test_the_commands_of_a_page_run(page: Path, sandbox: Sandbox) -> None:
    blocks = [block for block in blocks_of(page, *SHELL) if not block.reason]
    if any("curl " in block.text for block in blocks) and not shutil.which("curl"):
        pytest.skip("curl is missing")
    sandbox.write_run_file(page)
    done = sandbox.run(blocks)
    assert done.returncode == 0, f"{_name(page)}:\n{done.stderr[-4000:]}\n{done.stdout[-2000:]}"


@pytest.mark.parametrize("page", WITH_PYTHON, ids=_name)
def test_the_programs_of_a_page_run(page: Path, sandbox: Sandbox) -> None:
    blocks = [block for block in blocks_of(page, "python") if not block.reason]
    for module, line in NEEDED.items():
        if any(line in block.text for block in blocks):
            pytest.importorskip(module, reason=f"a program of {_name(page)} needs {module}, of the extra `test`")
    done = sandbox.run_python(blocks)
    assert done.returncode == 0, f"{_name(page)}:\n{done.stderr[-4000:]}\n{done.stdout[-2000:]}"


def test_no_page_is_without_a_test() -> None:
    assert {"docs/buying.md", "docs/tutorials/photographs.md", "docs/wire.md"} <= {
        _name(page) for page in WITH_COMMANDS
    }
    assert {"docs/wire.md", "docs/data/shapes.md"} <= {_name(page) for page in WITH_PYTHON}


@pytest.mark.parametrize(
    ("page", "block"), LEFT_OUT, ids=lambda one: f"{one.line}" if isinstance(one, Block) else _name(one)
)
def test_what_is_not_run_says_why(minutes: None, page: Path, block: Block) -> None:
    assert len(block.reason.split()) > 2
    pytest.skip(f"{_name(page)}, line {block.line}: {block.reason}")


def test_a_block_is_found_with_its_line_language_and_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n```console\na \\\n  b  # why\n\n# c\n```\n\n<!-- not run: needs a cat -->\n```bash\nmiaow\n```\n"
    )
    first, second = blocks_of(page, "console", "bash")
    assert (first.line, first.language, first.reason, list(first.commands)) == (3, "console", "", ["a b # why"])
    assert (second.line, second.language, second.reason) == (11, "bash", "needs a cat")
    assert blocks_of(page, "python") == []
