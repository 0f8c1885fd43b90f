"""What people get wrong: the exit code, a message with cause and next step, nothing billed, no file left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import httpx
import pytest

from support.client.buying_bench import draw_pictures
from support.client.client_shell import invoke
from support.client.fake_vendor import API_KEY, FakeVendor, served
from support.client.mistake_table import MISTAKES
from support.client.mistakes import Failure, Mistake
from vl2v_client.cli.console import PlainConsole
from vl2v_client.core.errors import DataError
from vl2v_client.runs import before_purchase

CACHE = "client.db"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of two classes of five pictures."""
    root = tmp_path_factory.mktemp("pictures")
    for domain in ("photo", "sketch"):
        for name in ("cat", "dog"):
            draw_pictures(root / domain / name, 5)
    return root


@pytest.fixture
def home(tmp_path: Path, pictures: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "data")
    return tmp_path


def _files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()}


def _environment(home: Path, url: str) -> dict[str, str | None]:
    return {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(home / CACHE)}


BY_THEMSELVES = {Failure.CUT_NAMES, Failure.SILENT_FETCH, Failure.BROKEN_WORDS, Failure.FOLDED_TABLES}
"""Failures that take a test of their own."""


def test_there_are_sixty_and_each_has_a_name() -> None:
    assert len({one.name for one in MISTAKES}) == len(MISTAKES) >= 60


def test_every_failure_that_was_met_is_there_and_five_rows_are_processes() -> None:
    assert {one.failure for one in MISTAKES if one.failure} == set(Failure) - BY_THEMSELVES
    assert len([one for one in MISTAKES if one.alone]) == 5


@pytest.mark.parametrize("row", MISTAKES, ids=lambda row: row.name)
def test_a_mistake_is_named_with_its_remedy_and_costs_nothing(
    row: Mistake, home: Path, vendor: FakeVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    held = row.prepare(home)
    row.vendor(vendor)
    places = {"home": str(home), "data": str(home / "data"), "out": str(home / "out")}
    with served(vendor) as url, held if isinstance(held, AbstractContextManager) else nullcontext():
        places |= {"url": url, "tls": url.replace("http:", "https:")}
        known = {**_environment(home, url), **row.environment}

        def run(words: str) -> tuple[int, str]:
            named = [word.format(**places) for word in words.split()]
            if row.alone:
                return _run_alone(named, known, home)
            done = invoke(named, known, row.typed)
            return done.exit_code, done.output

        if row.earlier:
            assert run(row.earlier)[0] == row.code
        before = _files(home)
        code, output = run(row.words)
    said = " ".join(output.split())
    assert code == row.code, said
    for part in row.says:
        assert part.format(**places) in said, said
    for part in ("Traceback", *row.never):
        assert part not in said, said
    assert vendor.billed_units == 0
    left = {name for name in _files(home) - before if row.cacheless or not name.startswith(CACHE)}
    assert left == row.leaves


def _run_alone(words: list[str], environment: dict[str, str | None], home: Path) -> tuple[int, str]:
    """Run a command as a process of its own, which nobody sits in front of; return its exit code and what it says."""
    path = f"{home}:{os.environ.get('PYTHONPATH', '')}"
    process = _start(_main(*words), environment, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")
    output, said = process.communicate(timeout=60)
    return process.returncode, output + said


def test_another_model_is_named_by_what_tells_it_from_the_last_one(home: Path, vendor: FakeVendor) -> None:
    names = "open_clip/ViT-B-16/of-spring", "open_clip/ViT-B-16/of-autumn"
    with served(vendor) as url:
        for vendor.model_id in names:
            done = invoke(["plan", "--data", str(home / "data"), "--views", "1"], _environment(home, url))
    assert f"id {' -> '.join(names)}" in " ".join(done.output.split())


def test_a_download_is_announced_before_it_begins(
    home: Path, vendor: FakeVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object, **__: object) -> None:
        raise DataError("no network: check it")

    monkeypatch.setattr(before_purchase, "build_student", cut_off)
    words = ["distill", "--data", str(home / "data"), "--out", str(home / "out"), "--yes", "--student", "resnet18"]
    with served(vendor) as url:
        done = invoke(words, _environment(home, url))
    said = " ".join(done.output.split())
    assert said.index("weights of resnet18 are fetched now") < said.index("no network")
    assert (done.exit_code, vendor.billed_units) == (3, 0)


def test_a_word_stays_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    words = [f"photos/{'very-' * 12}long.jpg", "is", "not", "an", "image,", "whatever", "its", "name", "says"]
    PlainConsole().print_words(" ".join(words))
    assert capsys.readouterr().out.split() == words


def test_a_table_in_a_pipe_is_as_wide_as_it_is(home: Path) -> None:
    long = "a class with a name that has many words, so that its row is wider than a terminal of eighty columns"
    for domain in ("photo", "sketch"):
        (home / "data" / domain / "cat").rename(home / "data" / domain / long)
    done = invoke(["check", str(home / "data")], {"COLUMNS": None})
    assert [line for line in done.stdout.splitlines() if long in line and f"a photo of a {long}" in line]


def _start(code: str, environment: dict[str, str | None], **more: str) -> subprocess.Popen[str]:
    known = {**os.environ, **{name: value for name, value in environment.items() if value is not None}, **more}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=known,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _main(*words: str) -> str:
    # A shell that starts tests in the background has SIGINT ignored, and children inherit that.
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return f"{heeded}; import sys; sys.argv = ['vl2v-client', *{words!r}]; from vl2v_client.cli import main; main()"


def test_ctrl_c_is_one_sentence_and_130(home: Path, vendor: FakeVendor) -> None:
    asked, answered = threading.Event(), threading.Event()

    def wait(_request: httpx.Request) -> None:
        asked.set()
        answered.wait(30)

    vendor.before = wait
    with served(vendor) as url:
        process = _start(_main("plan", "--data", str(home / "data")), _environment(home, url))
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        answered.set()
    assert (process.returncode, said.splitlines()[-1]) == (
        130,
        "interrupted; nothing bought is lost, and the same command goes on from here",
    )
    assert ("Traceback" in said, vendor.billed_units) == (False, 0)


def test_a_reader_that_has_read_enough_ends_the_command_without_a_word(home: Path) -> None:
    with _start(_main("check", str(home / "data"), "--json"), {}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (1, "")


def test_ctrl_c_in_the_demo_is_130_and_no_traceback(tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "benchmarks" / "demo.py"
    (tmp_path / "local_vendor.py").write_text(
        "from contextlib import contextmanager\n"
        "from rich.console import Console\n"
        "CONSOLE, run = Console(), None\n"
        "@contextmanager\n"
        "def local_vendor(*_, **__):\n"
        "    raise KeyboardInterrupt\n"
        "    yield\n"
    )
    code = (
        f"import runpy, sys; sys.path[:0] = [{str(tmp_path)!r}, {str(demo.parent)!r}]; "
        "sys.argv = ['demo.py', '--dir', 'demo']; "
        f"runpy.run_path({str(demo)!r}, run_name='__main__')"
    )
    process = _start(f"import os; os.chdir({str(tmp_path)!r}); {code}", {})
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.startswith("interrupted"), "Traceback" in said) == (130, True, False)
