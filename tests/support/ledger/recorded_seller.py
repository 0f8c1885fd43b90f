"""A ledger that sells and signs receipts in a process whose writes are recorded by `write_log.c`."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any

from sqlalchemy import event

from support.ledger.ledger_shop import Shop, open_shop
from vl2v_contract.records import StatementEntry
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.service.audit import sign_receipt

CALLERS = 4


def sell(database_url: str, receipts_path: str, orders: int, synchronous: str, seed: int) -> None:
    """Sell to several callers at once; each receipt is written down the moment that it could leave the vendor."""
    engine = open_engine(database_url)

    def set_durability(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA synchronous={synchronous}")

    event.listen(engine, "connect", set_durability)
    shop = open_shop(engine, budget_units=10 * orders)
    receipts = os.open(receipts_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def call(ledger: SqlLedger, caller: int) -> None:
        dice = random.Random(f"{seed} {caller}")
        for number in range(orders // CALLERS):
            names = [f"{caller} {number} {item}" for item in range(dice.randint(1, 4))]
            charge = await ledger.charge(shop.order(*names))
            assert charge.posted is not None
            os.write(receipts, _receipt(shop, charge.posted))

    async def story(ledger: SqlLedger) -> None:
        await asyncio.gather(*(call(ledger, caller) for caller in range(CALLERS)))

    shop.run(story)
    engine.dispose()


def _receipt(shop: Shop, posted: StatementEntry) -> bytes:
    receipt = sign_receipt(shop.signer, posted)
    return f"{receipt.entry.seq} {receipt.entry_hash} {receipt.signature}\n".encode()


if __name__ == "__main__":
    sell(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
