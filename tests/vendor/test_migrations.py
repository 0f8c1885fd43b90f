"""Old databases come along: columns are added in place, beside rows that nobody may change."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from support.ledger.ledger_shop import FakeClock, fixed_signer
from vl2v_vendor.ledger_sql import migrations
from vl2v_vendor.ledger_sql.database import open_engine, writing
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts

_OLD_ACT = {"request_id": "adm_old", "act": "create_account", "parameters": "{}", "outcome": "{}", "created_at": 1}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def first_revision(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of the first revision, with an act in its log."""
    on_sqlite = request.param == "sqlite"
    engine = open_engine(
        f"sqlite:///{tmp_path / 'vendor.db'}" if on_sqlite else request.getfixturevalue("empty_postgres_url")
    )
    with writing(engine).begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(files(migrations)))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = ", ".join(_OLD_ACT)
        values = ", ".join(f":{name}" for name in _OLD_ACT)
        connection.execute(text(f"INSERT INTO admin_log ({columns}) VALUES ({values})"), _OLD_ACT)
    yield engine
    engine.dispose()


def test_the_log_learns_who_acted_and_keeps_its_rows(first_revision: Engine) -> None:
    migrations.upgrade(first_revision)
    accounts = SqlAccounts(first_revision, signer=fixed_signer(), clock=FakeClock(), actor="cli:alice")
    accounts.create_account("acme", budget_units=1)
    old, signing, new = accounts.acts(limit=10)
    assert (old.request_id, old.act, old.actor, old.created_at) == ("adm_old", "create_account", None, 1)
    assert (signing.id, signing.act) == (old.id + 1, "sign_entries")
    assert (new.id, new.act, new.actor) == (old.id + 2, "create_account", "cli:alice")


def test_the_rows_stay_protected(first_revision: Engine) -> None:
    migrations.upgrade(first_revision)
    for statement in ("UPDATE admin_log SET actor = 'cli:mallory'", "DELETE FROM admin_log"):
        with pytest.raises(DBAPIError, match="append-only"), writing(first_revision).begin() as connection:
            connection.execute(text(statement))


def test_a_database_that_is_up_to_date_is_left_alone(first_revision: Engine) -> None:
    migrations.upgrade(first_revision)
    migrations.upgrade(first_revision)
    with first_revision.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0005"]


def test_a_database_of_a_later_version_is_refused_in_words(first_revision: Engine) -> None:
    migrations.upgrade(first_revision)
    with writing(first_revision).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(migrations.SchemaNewer, match=r"revision 0999, and this one knows \d{4}: start that version"):
        migrations.upgrade(first_revision)
