"""Three vendors behind HAProxy and PgBouncer: shared work, one exact budget, and a new version beside the old one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from support.ledger.ledger_shop import item_key
from support.vendor.compose_stack import Stack, count_sold, docker
from support.vendor.live_parties import Client
from vl2v_client.api.client import VendorClient
from vl2v_client.api.retries import RetryPolicy
from vl2v_vendor.ledger_sql.migrations import HEAD_REVISION

STACK = "three vendors of digests"
pytestmark = [pytest.mark.timeout(1800), pytest.mark.parametrize("stack", [STACK], indirect=True)]

PATIENT = RetryPolicy(max_attempts=40)
"""A busy machine may keep the ledger from answering in time, several times in a row."""

BUSY = {502, 503, 504}

NEXT_IMAGE = "vl2v-vendor:next-of-the-test"
NEXT_REVISION = f"{int(HEAD_REVISION) + 1:04}"
NEXT_VERSION = f"""
FROM vl2v-vendor:0.2.0
USER root
RUN python - <<'END'
from pathlib import Path
import vl2v_vendor.ledger_sql.migrations as migrations
source = Path(migrations.__file__)
(source.parent / "versions" / "v{NEXT_REVISION}_note.py").write_text('''
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "{NEXT_REVISION}", "{HEAD_REVISION}", None, None
def upgrade() -> None:
    op.add_column("accounts", sa.Column("note", sa.String(64), nullable=True))
''')
text = source.read_text()
assert 'HEAD_REVISION = "{HEAD_REVISION}"' in text
source.write_text(text.replace('HEAD_REVISION = "{HEAD_REVISION}"', 'HEAD_REVISION = "{NEXT_REVISION}"'))
END
USER vl2v
"""
"""This version with one more migration, which the old servers can live with."""


def test_all_share_the_work_and_the_proxy_hides_their_metrics(stack: Stack, new_client: Callable[..., Client]) -> None:
    client = new_client()
    with VendorClient(stack.url, client.api_key, policy=PATIENT) as vendor, ThreadPoolExecutor(6) as pool:
        teacher = vendor.model()
        list(pool.map(lambda text: vendor.embed_texts([text], [item_key(text)], teacher), map(str, range(60))))
    assert client.used_units() == 60
    assert httpx.get(f"{stack.url}/metrics", timeout=60, trust_env=False).status_code == 404
    sales = [count_sold(container, "text") for container in stack.vendors()]
    assert len(sales) == 3
    assert min(sales) > 0
    assert sum(sales) == 60


def test_one_budget_is_exact_over_all(stack: Stack, new_client: Callable[..., Client]) -> None:
    client = new_client(budget=100)
    headers = {"Authorization": f"Bearer {client.api_key}"}

    def buy_until_refused(buyer: int) -> tuple[int, int]:
        sold, status = 0, 200
        while status in {200, *BUSY}:
            text = f"text {sold} of {buyer}"  # the same again, if the ledger was too busy to answer in time
            body = {"items": [{"text": text, "item_key": item_key(text)}]}
            answer = httpx.post(
                f"{stack.url}/v1/embeddings/texts", json=body, headers=headers, timeout=60, trust_env=False
            )
            status = answer.status_code
            sold += status == 200
        return sold, status

    with ThreadPoolExecutor(12) as pool:
        ends = list(pool.map(buy_until_refused, range(12)))
    assert sum(sold for sold, _ in ends) == client.used_units() == 100
    assert {status for _, status in ends} == {402}
    stack.verify()


@dataclass
class Load:
    """Buyers that go on until they are told to stop, and what became of each item."""

    client: VendorClient
    sold: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def buy(self, buyer: int) -> None:
        teacher, number = self.client.model(), 0
        while not self.is_over.is_set():
            texts = [f"text {number + each} of {buyer}" for each in range(4)]
            number += len(texts)
            try:
                delivery = self.client.embed_texts(texts, [item_key(text) for text in texts], teacher)
            except Exception as error:
                self.failed.append(str(error))
                continue
            self.failed += [item.item_key for item in delivery.failed]
            self.sold |= dict.fromkeys((item.item_key for item in delivery.items), buyer)


def test_a_new_version_with_a_migration_takes_over_under_load(stack: Stack, new_client: Callable[..., Client]) -> None:
    docker("build", "--tag", NEXT_IMAGE, "-", text=NEXT_VERSION, seconds=900)
    client, old = new_client(1_000_000), stack.vendors()
    with VendorClient(stack.url, client.api_key, policy=PATIENT) as vendor, ThreadPoolExecutor(4) as pool:
        load = Load(vendor)
        buyers = [pool.submit(load.buy, buyer) for buyer in range(3)]
        try:
            phases = [_sold_by(load, at_least=20)]
            stack.configure(VENDOR_IMAGE=NEXT_IMAGE)
            stack.compose("run", "--rm", "--no-deps", "-T", "vendor", "vl2v-vendor", "accounts", "list")
            assert _revision(stack) == NEXT_REVISION
            phases.append(_sold_by(load, at_least=20))  # by the old servers on the new schema
            stack.up("--no-recreate", "--scale", "vendor=6", "vendor")
            phases.append(_sold_by(load, at_least=20))
            for container in old:
                docker("stop", "--time", "45", container)
                docker("rm", container)
                phases.append(_sold_by(load, at_least=20))
        finally:
            load.is_over.set()
        for buyer in buyers:
            buyer.result()
        assert load.failed == []
        keys = list(load.sold)
        replayed = [vendor.replay(keys[start : start + 8]) for start in range(0, len(keys), 8)]
    new = stack.vendors()
    assert (len(new), set(new) & set(old)) == (3, set())
    assert {container["Config"]["Image"] for container in stack.inspect("vendor")} == {NEXT_IMAGE}
    assert sum(len(delivery.items) for delivery in replayed) == len(keys)
    assert [failed for delivery in replayed for failed in delivery.failed] == []
    assert client.used_units() == len(keys)
    stack.verify()
    stack.up()
    assert set(stack.vendors()) == set(new)


def _sold_by(load: Load, *, at_least: int, seconds: float = 300) -> int:
    """Wait until so much more is sold; returns how much it is then."""
    deadline, begun = time.monotonic() + seconds, len(load.sold)
    while len(load.sold) < begun + at_least:
        assert time.monotonic() < deadline, f"the sales ended: {load.failed[:3]}"
        time.sleep(0.05)
    return len(load.sold)


def _revision(stack: Stack) -> str:
    query = "SELECT version_num FROM alembic_version"
    return stack.compose("exec", "-T", "postgres", "psql", "-U", "vl2v", "-At", "-c", query).strip()
