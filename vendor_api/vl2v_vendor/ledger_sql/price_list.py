"""Prices: immutable versions, the newest one in force."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, text

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ledger import MAX_UNIT_PRICE_MICRO, Price
from vl2v_vendor.ledger_sql.database import is_postgresql
from vl2v_vendor.ledger_sql.rows import PRICE_COLUMNS, to_price
from vl2v_vendor.ledger_sql.statements import price_in_force
from vl2v_vendor.ledger_sql.tables import prices

_PRICES_LOCK = 0x766C3278  # beside the locks of the migrations, of the signing keys and of the admin log


def lock_prices(connection: Connection) -> None:
    """Until the transaction ends nobody else passes here, so that two replicas cannot both insert a first price.

    An advisory lock: locking the table takes rights to change its rows, which a server need not have.
    """
    if is_postgresql(connection):
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _PRICES_LOCK})


def insert_price(
    connection: Connection, model_id: str, modality: Modality, unit_price_micro: int, currency: str, now: int
) -> Price:
    """Insert a new version, in force from the commit on.

    Raises:
        InvalidRequest: The price is out of range or the currency is not three capital letters.
    """
    if not 0 <= unit_price_micro <= MAX_UNIT_PRICE_MICRO:
        raise InvalidRequest(
            f"a unit price of {unit_price_micro} micro-units is out of range; give 0 to {MAX_UNIT_PRICE_MICRO}"
        )
    row = {
        "model_id": model_id,
        "modality": modality,
        "unit_price_micro": unit_price_micro,
        "currency": check_currency(currency),
        "valid_from": now,
    }
    return to_price(connection.execute(insert(prices).values(row).returning(*PRICE_COLUMNS)).one())


def current_price(connection: Connection, model_id: str, modality: Modality) -> Price | None:
    """Return the version in force."""
    row = connection.execute(price_in_force(), {"model_id": model_id, "modality": modality}).first()
    return None if row is None else to_price(row)


def list_prices(connection: Connection, model_id: str | None) -> list[Price]:
    """Return all versions, oldest first."""
    query = select(*PRICE_COLUMNS).order_by(prices.c.id)
    if model_id is not None:
        query = query.where(prices.c.model_id == model_id)
    return [to_price(row) for row in connection.execute(query)]


def check_currency(currency: str) -> str:
    """Check that a currency looks like an ISO 4217 code.

    Raises:
        InvalidRequest: It does not.
    """
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha() or not currency.isupper():
        raise InvalidRequest(f"`{currency}` is no currency code; use three capital letters such as EUR")
    return currency
