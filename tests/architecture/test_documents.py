"""The documents against the code: links, options of commands, examples, named files, and the length of pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.help_screens import commands_of, flags_of
from vl2v_client.cli.app import app as client_app
from vl2v_client.config.run import RunConfig
from vl2v_vendor.cli.app import app as vendor_app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
USED = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "adr"]
"""Pages that say how it is; the changelog names what was, and decisions name what others have."""
PAGE_LINES = 200
README_WORDS = 900

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOREIGN = {"--build-arg", "--data-binary", "--json", "--nproc-per-node", "--profile", "--strict"} | {
    "--build",
    "--detach",
    "--format",
    "--no-deps",
    "--no-recreate",
    "--quiet",
    "--rm",
    "--scale",
    "--tag",
    "--time",
    "--wait",
    "--for",
    "--from-file",
    "--from-literal",
    "--ignore-not-found",
    "--timeout",
}
"""Options of docker, curl, torchrun and mypy, and of kubectl."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _code(text: str) -> Iterator[str]:
    """Yield each line of code blocks, continued lines joined, and each inline code."""
    for block in FENCED.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    prose = FENCED.sub("", text)
    yield from re.findall(r"^ {4}(.*)$", prose, re.MULTILINE)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


@cache
def _options() -> dict[str, set[str]]:
    """Return the options of each command, by its words."""
    options = {}
    of_the_program = {"--help", "--version", "--install-completion", "--shell", "--output"}
    for program, app in (("vl2v-client", client_app), ("vl2v-vendor", vendor_app)):
        options[program] = of_the_program
        for words in commands_of(app):
            options[f"{program} {words}"] = {"--help", *flags_of(app, words)}
    return options


@cache
def _options_of_anything() -> set[str]:
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "scripts").glob("*.py"), ROOT / "tests" / "conftest.py"]
    declared = re.compile(r"add(?:_argument|option)\(\s*\"(--[a-z-]+)\"")
    of_scripts = {name for script in scripts for name in declared.findall(script.read_text())}
    return set().union(FOREIGN, of_scripts, *_options().values())


def _unknown_options(code: str) -> Iterator[str]:
    found = re.match(r".*?(vl2v-(?:client|vendor)) ([^#&|;)]*)", code.replace("-m vl2v_client", "vl2v-client"))
    if found is None:
        yield from (flag for flag in FLAG.findall(code) if flag not in _options_of_anything())
        return
    command, rest = found.groups()
    for word in rest.split():
        if f"{command} {word}" not in _options():
            break
        command = f"{command} {word}"
    yield from (f"{command} {flag}" for flag in FLAG.findall(rest) if flag not in _options()[command])


@pytest.mark.parametrize("page", USED, ids=_name)
def test_each_option_is_one_of_its_command(page: Path) -> None:
    assert [one for code in _code(page.read_text()) for one in _unknown_options(code)] == []


def test_an_option_that_its_command_lacks_is_found() -> None:
    assert list(_unknown_options("vl2v-client plan --data photos --online")) == ["vl2v-client plan --online"]
    assert list(_unknown_options("vl2v-vendor keys create --account a --colour")) == [
        "vl2v-vendor keys create --colour"
    ]
    assert list(_unknown_options("--rounds-of-buying")) == ["--rounds-of-buying"]
    assert list(_unknown_options("vl2v-client cache stats --cache x # --nothing")) == []


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = page.parent / path if path else page
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor and file.is_file() else []
        if not file.exists() or (anchor and anchor not in map(_slug, headings)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", USED, ids=_name)
def test_each_yaml_example_is_a_run(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        assert RunConfig.load(file).data.target_domain


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text()
    lists = re.findall(r":::\{toctree\}\n(.*?)^:::$", contents, re.MULTILINE | re.DOTALL)
    listed = {line.strip("<>") for block in lists for line in block.split()}
    named = {_name(page).removeprefix("docs/").removesuffix(".md") for page in PAGES if page.parent.name != "adr"}
    assert named - {name.removeprefix("../") for name in listed} == {"index"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= README_WORDS


@pytest.mark.parametrize("folder", ["methods", "operating"])
def test_pages_that_answer_one_question_are_short(folder: str) -> None:
    pages = [ROOT / "docs" / f"{folder}.md", *(ROOT / "docs" / folder).glob("*.md")]
    assert len(pages) > 3
    assert {_name(page) for page in pages if len(page.read_text().splitlines()) > PAGE_LINES} == set()


def test_the_recipes_name_files_and_names_that_exist() -> None:
    sources = [path for folder in ("shared", "vendor_api", "client", "tests") for path in (ROOT / folder).rglob("*.py")]
    files, code = {path.name for path in sources}, "\n".join(path.read_text() for path in sources)
    recipes = (ROOT / "CONTRIBUTING.md").read_text().split("## Recipes\n")[1].split("\n## ")[0]
    for name in re.findall(r"`([^`]+)`", recipes):
        if "/" in name:
            found = any(path.exists() for path in (ROOT / name, ROOT / "vendor_api" / "vl2v_vendor" / name))
            assert found, name
        elif name.endswith(".py") and "NNNN" not in name:
            assert name in files, name
        elif re.fullmatch(r"_?[A-Z]\w+", name):
            assert re.search(rf"\b{name}\b", code), name
