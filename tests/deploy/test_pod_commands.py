"""What the manifests run, run here without containers: the migration, the keys' copy, and a vendor on both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.settings import ENV_PREFIX, load_settings

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
MOUNTS = ("/run/signing-keys", "/run/vl2v", "/var/lib/vl2v")

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


def _pod(name: str) -> dict[str, list[dict[str, list[str]]]]:
    pod: dict[str, list[dict[str, list[str]]]] = yaml.safe_load((MANIFESTS / name).read_text())["spec"]["template"][
        "spec"
    ]
    return pod


def _migrate(url: str, folder: Path) -> None:
    program, *words = _pod("migrate/job.yaml")["containers"][0]["command"]
    assert program == "vl2v-vendor"
    environment = os.environ | {f"{ENV_PREFIX}DATABASE_URL": url, f"{ENV_PREFIX}DATA_DIR": str(folder)}
    subprocess.run([sys.executable, "-m", "vl2v_vendor", *words], env=environment, check=True)


def _copy_keys(root: Path) -> None:
    *shell, script = _pod("base/deployment.yaml")["initContainers"][0]["command"]
    for mount in MOUNTS:
        (root / mount[1:]).mkdir(parents=True, exist_ok=True)
        script = script.replace(f" {mount}/", f" {root}{mount}/")
    subprocess.run([*shell, script], check=True)


async def test_a_vendor_starts_after_migration_and_copy_of_the_keys(empty_postgres_url: str, tmp_path: Path) -> None:
    _migrate(empty_postgres_url, tmp_path / "migration")
    secret = tmp_path / "run/signing-keys/vendor-secrets.json"
    load_or_create_secrets(secret)
    secret.chmod(0o440)  # as the Secret is mounted
    data = tmp_path / "var/lib/vl2v"
    settings = load_settings(database_url=empty_postgres_url, data_dir=data, encoder="hash")
    for _ in range(2):  # the second time as after a restart of the pod
        _copy_keys(tmp_path)
        async with open_services(settings, lambda *_: None):
            assert settings.secrets_path.readlink() == tmp_path / "run/vl2v/vendor-secrets.json"
            assert {path.name for path in data.glob("*heads.json")} == {"vendor-published-heads.json"}
    assert list((tmp_path / "run/vl2v").iterdir()) == [tmp_path / "run/vl2v/vendor-secrets.json"]
