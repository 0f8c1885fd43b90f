"""The pods of deploy/kubernetes with the real image, run by podman: migrated, hardened, bought from and stopped.

No cluster: no Service, probe, NetworkPolicy or autoscaler is tried.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.vendor.live_parties import free_port
from support.vendor.pods import MIGRATION, VENDOR, Pods, missing_podman, render, secrets_of, state_of

pytestmark = pytest.mark.timeout(1800)

IMAGES = ("vl2v-vendor:0.2.0", "postgres:17-alpine")


@pytest.fixture(scope="module")
def pods(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """A vendor of the overlay `cpu` that is ready, its database migrated by the Job."""
    missing = missing_podman()
    if missing is not None:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("pods")
    made = Pods(folder, free_port())
    try:
        made.load(*IMAGES)
        made.start_database(IMAGES[1])
        made.play([*secrets_of(folder / "keys"), *render("migrate")])
        assert made.podman("wait", MIGRATION) == "0", made.logs(MIGRATION)
        made.grant()
        made.play(render("overlays/cpu"), "--publish", f"127.0.0.1:{made.port}:8000")
        made.wait_until_ready()
        yield made
    finally:
        made.remove()


def test_the_pod_is_hardened(pods: Pods) -> None:
    def vendor(script: str) -> list[str]:
        return pods.podman("exec", VENDOR, "sh", "-c", script).split()

    assert vendor("id -u; id -g") == ["10001", "10001"]
    status = dict(line.split(":\t", 1) for line in pods.podman("exec", VENDOR, "cat", "/proc/1/status").splitlines())
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "Read-only file system" in pods.podman("exec", VENDOR, "sh", "-c", "touch /opt/x 2>&1; true")
    assert vendor("stat -Lc %a:%u:%g /run/vl2v/vendor-secrets.json") == ["440:0:10001"]
    assert "Read-only file system" in pods.podman("exec", VENDOR, "sh", "-c", "touch /run/vl2v/x 2>&1; true")
    assert "vendor-published-heads.json" in vendor("ls /var/lib/vl2v")


def test_the_pod_sells_and_its_ledger_is_whole(pods: Pods) -> None:
    key = pods.podman("exec", VENDOR, "vl2v-vendor", "keys", "create", "--account", "acme", "--budget", "10")
    headers, body = {"Authorization": f"Bearer {key}"}, {"items": [{"text": "a red circle"}]}
    url = f"{pods.url}/v1/embeddings/texts"
    answer = httpx.post(url, json=body, headers=headers, timeout=120, trust_env=False)
    assert (answer.status_code, answer.json()["usage"]["billed_units"]) == (200, 1), answer.text
    pods.podman("exec", VENDOR, "vl2v-vendor", "ledger", "verify")


def test_a_stop_ends_the_vendor_by_itself(pods: Pods) -> None:
    pods.podman("stop", "--time", "60", VENDOR)
    assert state_of(pods, VENDOR)["State"]["ExitCode"] == 0
