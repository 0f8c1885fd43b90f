"""What the manifests run, run here without containers: the migration, and a vendor on it with mounted keys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.settings import ENV_PREFIX, load_settings

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


def _pod(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = yaml.safe_load((MANIFESTS / name).read_text())["spec"]["template"]["spec"]
    return pod


def _migrate(url: str, folder: Path) -> None:
    program, *words = _pod("migrate/job.yaml")["containers"][0]["command"]
    assert program == "vl2v-vendor"
    environment = os.environ | {f"{ENV_PREFIX}DATABASE_URL": url, f"{ENV_PREFIX}DATA_DIR": str(folder)}
    subprocess.run([sys.executable, "-m", "vl2v_vendor", *words], env=environment, check=True)


def _settings_of_the_vendor(root: Path) -> dict[str, Path]:
    """What the manifest says of files, under a root of the test, whose folders are those of the mounts."""
    (vendor,) = _pod("base/deployment.yaml")["containers"]
    for mount in vendor["volumeMounts"]:
        (root / mount["mountPath"][1:]).mkdir(parents=True, exist_ok=True)
    named = {variable["name"]: variable["value"] for variable in vendor["env"] if "value" in variable}
    return {name.removeprefix(ENV_PREFIX).lower(): root / path[1:] for name, path in named.items()}


async def test_a_vendor_starts_after_the_migration_on_mounted_keys(empty_postgres_url: str, tmp_path: Path) -> None:
    _migrate(empty_postgres_url, tmp_path / "migration")
    files = _settings_of_the_vendor(tmp_path)
    secret, data = tmp_path / "run/vl2v/vendor-secrets.json", tmp_path / "var/lib/vl2v"
    load_or_create_secrets(secret)
    secret.chmod(0o440)  # as the Secret is mounted, for the group
    settings = load_settings(database_url=empty_postgres_url, data_dir=data, encoder="hash", **files)
    for _ in range(2):  # the second time as after a restart of the pod
        async with open_services(settings, lambda *_: None):
            assert settings.secrets_path == secret
            assert {path.name for path in data.glob("*heads.json")} == {"vendor-published-heads.json"}
    assert [*secret.parent.iterdir()] == [secret]
