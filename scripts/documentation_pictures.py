"""Take the pictures of the documentation anew: a terminal, the report of a run, the vendor's page.

    python scripts/documentation_pictures.py docs/pictures

It runs the client on drawn shapes against a vendor on this machine, for few steps: the figures in the pictures say how
things look, not how good they are. Needs Chromium (`apt install chromium`) and the extra `browser`.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from local_vendor import BIN, local_vendor

WIDTH, HEIGHT, COLUMNS, COLOURS = 1280, 960, 92, 96
RUN = ("--data", "shapes", "--target-domain", "sketch", "--views", "2")
STEPS = (
    "--out",
    "my-run",
    "--align-steps",
    "60",
    "--distill-steps",
    "80",
    "--evaluate-every",
    "20",
    "--train-views",
    "4",
)
_TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 20px 24px; background: #14181f; color: #e6e8eb; width: max-content }}
pre {{ margin: 0; font: 15px/1.35 "DejaVu Sans Mono", monospace }} {stylesheet}</style><pre>{code}</pre>"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    out, chromium = Path(sys.argv[1]).resolve(), shutil.which("chromium")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        home = Path(name)
        page = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page(
            viewport={"width": WIDTH, "height": HEIGHT}
        )
        with local_vendor(home / "shop", account="acme", budget=5000) as environment:
            run(environment, home, "shapes", "shapes", "--images-per-class", "12")
            screen = record(environment, home, "plan", *RUN)
            run(environment, home, "distill", *RUN, "--baseline", "erm", *STEPS, "--yes")
            screen += record(environment, home, "audit")
            (home / "terminal.html").write_text(as_html(screen))
            page.goto(f"file://{home / 'terminal.html'}")
            keep(page.locator("body").screenshot(), out / "terminal.png")
            page.goto(f"file://{home / 'my-run' / 'report.html'}")
            keep(page.screenshot(), out / "report.png")
            take_bill(page, environment, out / "bill.png")


def take_bill(page: Any, environment: Mapping[str, str], file: Path) -> None:
    """Log in to the vendor's page, and take its first screen."""
    page.goto(environment["VL2V_VENDOR_URL"])
    page.get_by_label("API key").fill(environment["VL2V_API_KEY"])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Bill of").wait_for()
    keep(page.screenshot(), file)


def run(environment: Mapping[str, str], home: Path, *words: str) -> str:
    """Run a command of the client in colour, and return what it prints, without its bars."""
    command = [str(BIN / "vl2v-client"), *words]
    looks = {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(command, cwd=home, env={**environment, **looks}, text=True, stdout=-1, check=True)
    return done.stdout


def record(environment: Mapping[str, str], home: Path, *words: str) -> str:
    """Return a command as one types it, and what it prints."""
    typed = shlex.join(("vl2v-client", *words))
    return f"\x1b[1m$ {typed}\x1b[0m\n{run(environment, home, *words)}\n"


def as_html(screen: str) -> str:
    """Return a page that shows what a terminal shows."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
    return console.export_html(code_format=_TERMINAL, theme=MONOKAI)


def keep(picture: bytes, file: Path) -> None:
    """Write a small PNG: pages have few colours."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size // 1024} KiB, {image.width} x {image.height}")


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    main()
