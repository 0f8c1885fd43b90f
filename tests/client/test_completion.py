"""The scripts that complete words in a shell; bash itself reads the one for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.client.client_shell import invoke
from vl2v_client.cli.app import app


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_the_commands_and_their_options(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "folder" / "script"
    words = ["--install-completion", "--shell", shell, "--output", str(script)]
    assert invoke(words, {"HOME": str(tmp_path)}).exit_code == 0
    text = script.read_text()
    assert "vl2v-client" in text
    assert {word for word in ("distill", "predict", "cache", "target-domain", "max-cost") if word not in text} == set()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]  # no start file of the shell is changed


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is missing")
@pytest.mark.parametrize(
    ("typed", "offered"), [("di", "distill"), ("distill --target-d", "--target-domain"), ("cache ve", "verify")]
)
def test_bash_completes_a_word(typed: str, offered: str, tmp_path: Path) -> None:
    script = tmp_path / "script.bash"
    script.write_text(app.generate_completion(shell="bash"))
    words = ["vl2v-client", *typed.split()]
    asked = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        'eval "$(complete -p vl2v-client | sed -E "s/.*-F ([^ ]+).*/\\1/")"; echo "${COMPREPLY[*]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert offered in done.stdout.split(), done.stderr
