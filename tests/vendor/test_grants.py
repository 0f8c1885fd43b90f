"""PostgreSQL under least privilege, by the very statements that docs/operating/database.md gives the platform team."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from support.ledger.ledger_shop import item_key
from support.vendor.admin_desk import open_desk
from vl2v_vendor.host import SystemClock
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish
from vl2v_vendor.ledger_sql.migrations import SchemaOutdated, upgrade
from vl2v_vendor.ledger_sql.reading import snapshot
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.ledger_sql.sql_ledger import prune_results
from vl2v_vendor.ledger_sql.tables import APPEND_ONLY_TABLES

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

_COLUMN_OF = {
    "ledger": "units",
    "charge_items": "units",
    "prices": "unit_price_micro",
    "admin_log": "created_at",
    "entry_signatures": "signature",
    "act_signatures": "signature",
}
_PAGE = Path(__file__).parents[2] / "docs" / "operating" / "database.md"


def run_sql(url: str, script: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in filter(None, map(str.strip, script.split(";"))):
            connection.execute(text(statement))
    engine.dispose()


def documented_scripts() -> list[str]:
    section = _PAGE.read_text().partition("## PostgreSQL roles")[2].partition("\n## ")[0]
    return re.findall(r"```sql\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def service_url(postgres_server: str) -> Iterator[str]:
    """The database as a server with the documented rights sees it; the owner has migrated it."""
    roles, grants = documented_scripts()
    run_sql(postgres_server, roles)
    in_database = make_url(postgres_server).set(database="vl2v")
    owner_url = in_database.set(username="vl2v_owner").render_as_string(hide_password=False)
    service_url = in_database.set(username="vl2v_service").render_as_string(hide_password=False)
    owner, service = open_engine(owner_url), open_engine(service_url)
    try:
        with pytest.raises(SchemaOutdated, match="owns the tables"):
            upgrade(service)
        upgrade(owner)
        run_sql(owner_url, grants)
        yield service_url
    finally:
        owner.dispose()
        service.dispose()
        run_sql(postgres_server, "DROP DATABASE vl2v WITH (FORCE); DROP ROLE vl2v_service; DROP ROLE vl2v_owner")


async def test_the_vendor_sells_and_is_administered_under_the_service_role(service_url: str, tmp_path: Path) -> None:
    async with open_desk(service_url, tmp_path) as desk:
        await desk.post("/accounts", {"name": "acme", "budget_units": 3}, key="open")
        secret = await desk.issue("acme", "embed", "billing", limit_units=3)
        for _ in range(2):
            assert (await desk.buy(secret, "a", "b")).status_code == 200
        for path, body in (
            ("/accounts/acme/topups", {"units": 5}),
            ("/accounts/acme/refunds", {"seq": 2, "units": 1, "note": "blurred"}),
            ("/prices", {"model_id": "m", "modality": "image", "unit_price_micro": 7, "currency": "EUR"}),
        ):
            assert (await desk.post(path, body)).status_code == 201
        assert (await desk.post(f"/keys/{secret[:13]}/revocation")).status_code == 200
        assert (await desk.get("/accounts/acme"))["remaining_units"] == 7
    service = open_engine(service_url)
    rotate_and_publish(service, tmp_path / "vendor-secrets.json")
    assert prune_results(service, SystemClock()) == 0
    with snapshot(service) as connection:
        assert verify_ledger(connection).clean
    with service.connect() as connection:
        names = connection.execute(text("SELECT item_key FROM charge_items ORDER BY seq, idx")).scalars().all()
    assert names == [item_key("a"), item_key("b")]
    refuse_every_change(service)
    service.dispose()


def refuse_every_change(service: Engine) -> None:
    statements = [
        statement
        for table in APPEND_ONLY_TABLES
        for statement in (
            f"UPDATE {table} SET {_COLUMN_OF[table]} = 0",
            f"DELETE FROM {table}",
            f"TRUNCATE {table} CASCADE",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"DROP TRIGGER {table}_refuse_update ON {table}",
            f"DROP TABLE {table} CASCADE",
        )
    ]
    statements += [
        "DELETE FROM accounts",
        "DELETE FROM budgets",
        "UPDATE api_keys SET scopes = 'admin'",
        "UPDATE vendor SET ledger_id = 'x'",
        "CREATE TABLE mine (id int)",
        "DROP FUNCTION vl2v_refuse_change",
    ]
    for statement in statements:
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), service.begin() as connection:
            connection.execute(text(statement))
