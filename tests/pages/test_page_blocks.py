"""Every command and program of a page runs as it stands there, or a comment says why the tests do not run it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import newcomer
import pytest
from page_blocks import SHELL, Block, blocks_of, taken_for_granted

from support.page_sandbox import Sandbox

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LEFT_OUT = [(page, block) for page in PAGES for block in blocks_of(page, *SHELL, "python") if block.reason]
RUN = [page for page in PAGES if any(not block.reason for block in blocks_of(page, *SHELL, "python"))]
pytestmark = pytest.mark.timeout(600)


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


@pytest.mark.parametrize("page", RUN, ids=_name)
def test_the_commands_and_programs_of_a_page_run(page: Path, sandbox: Sandbox) -> None:
    blocks = [block for block in blocks_of(page, *SHELL, "python") if not block.reason]
    text = "\n".join(block.text for block in blocks)
    missing = [name for name in ("curl", "find") if f"{name} " in text and not shutil.which(name)]
    imported = {
        name for line in re.findall(r"^(?:import|from) ([\w, ]+)", text, re.MULTILINE) for name in _modules(line)
    }
    missing += [name for name in sorted(imported) if find_spec(name) is None]
    if missing:
        pytest.skip(f"{_name(page)} needs {', '.join(missing)}")
    done = sandbox.run(page, blocks)
    assert done.returncode == 0, f"{_name(page)}:\n{done.stderr[-4000:]}\n{done.stdout[-2000:]}"


def _modules(line: str) -> list[str]:
    return [name.split(" as ")[0].strip() for name in line.split(" import ")[0].split(",")]


def test_the_pages_that_readers_begin_with_are_run() -> None:
    first = {"docs/tutorials/photographs.md", "docs/buying.md", "docs/operating.md", "docs/python.md", "docs/wire.md"}
    assert first <= {_name(page) for page in RUN}


def test_the_tutorial_is_five_commands_after_the_installation() -> None:
    commands = newcomer.page_commands()
    assert len(commands) == newcomer.MOST_COMMANDS
    assert [command.split()[1] for command in commands] == ["check", "plan", "distill", "predict", "audit"]
    assert {word for command in commands for word in command.split() if word.startswith("--config")} == set()


@pytest.mark.parametrize(
    ("page", "block"), LEFT_OUT, ids=lambda one: f"{one.line}" if isinstance(one, Block) else _name(one)
)
def test_what_is_not_run_says_why(minutes: None, page: Path, block: Block) -> None:
    pytest.skip(f"{_name(page)}, line {block.line}: {block.reason}")


def test_a_block_is_found_with_its_line_language_and_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shell = "```console\na \\\n  b  # why\n\n# c\n```\n"
    page.write_text(f"# A page\n<!-- before: a --b -->\n{shell}\n<!-- not run: needs a cat -->\n```bash\nmiaow\n```\n")
    first, second = blocks_of(page, "console", "bash")
    assert (first.line, first.language, first.reason, list(first.commands)) == (3, "console", "", ["a b # why"])
    assert (second.line, second.language, second.reason) == (11, "bash", "needs a cat")
    assert blocks_of(page, "python") == []
    assert taken_for_granted(page) == ["a --b"]
