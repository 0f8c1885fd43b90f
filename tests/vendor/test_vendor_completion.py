"""The scripts that complete the vendor's commands in a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.vendor.vendor_shell import invoke


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_the_commands_and_their_options(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    assert invoke("--install-completion", "--shell", shell, "--output", str(script), HOME=str(tmp_path)).exit_code == 0
    words = ("vl2v-vendor", "serve", "keys", "topup", "key-budget", "pretrained")
    assert {word for word in words if word not in script.read_text()} == set()
    assert list(tmp_path.iterdir()) == [script]
