"""The bill as people look at it: what was spent lately, and the statement from any place in it.

However long the ledger is, a view reads the rows that it shows, or those of the days that it adds up.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.identity import MAX_INTEGER
from vl2v_contract.records import Breakdown
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ports import AccountTotals, Clock, Ledger

RECENT_DAYS = 30
PAGE_ENTRIES = 50

_DAY = timedelta(days=1)
_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class RecentSpending:
    """The balance now, and what the last `RECENT_DAYS` days (UTC) cost; `days` has each of them, oldest first."""

    totals: AccountTotals
    days: tuple[Breakdown, ...]


@dataclass(frozen=True, slots=True)
class StatementView:
    """Entries, the newest first.

    Attributes:
        found_seq: The entry that was looked for, if one was, and it is there.
        newer_than: Number after which there are newer entries; None if there are none.
        older_than: Number before which there are older entries; None if there are none.
    """

    entries: tuple[LedgerEntry, ...]
    found_seq: int | None = None
    newer_than: int | None = None
    older_than: int | None = None


@dataclass(eq=False, slots=True)
class BillViews:
    """What the pages show of a bill. Every method may raise `LedgerUnavailable`."""

    ledger: Ledger
    clock: Clock

    async def recent(self, account_id: str) -> RecentSpending:
        """Add up the last days."""
        today = datetime.fromtimestamp(self.clock.now() // _MICRO, tz=UTC).replace(hour=0, minute=0, second=0)
        first = today - (RECENT_DAYS - 1) * _DAY
        totals = await self.ledger.totals(account_id, since=_micro(first))
        spent = {day.name: day for day in totals.by_day}
        names = [f"{first + number * _DAY:%Y-%m-%d}" for number in range(RECENT_DAYS)]
        return RecentSpending(totals, tuple(spent.get(name, Breakdown(0, 0, name)) for name in names))

    async def before(self, account_id: str, seq: int | None, *, limit: int = PAGE_ENTRIES) -> StatementView:
        """Return the entries before a number, or the newest."""
        return await self._view(account_id, await self.ledger.list_entries(account_id, limit=limit, before_seq=seq))

    async def after(self, account_id: str, seq: int) -> StatementView:
        """Return the page of entries after a number."""
        return await self._view(
            account_id, await self.ledger.list_entries(account_id, limit=PAGE_ENTRIES, after_seq=seq)
        )

    async def find(self, account_id: str, words: str) -> StatementView:
        """Return the page that begins with the entry that is looked for; an empty one if there is none.

        Args:
            account_id: Account.
            words: An entry's number, a day (`2026-11-30`: its last entry), a request's id or an item's key.

        Raises:
            InvalidRequest: That is none of these.
        """
        seq = await self._seq_of(account_id, words.strip())
        if not seq:
            return StatementView(())
        entries = await self.ledger.list_entries(account_id, limit=PAGE_ENTRIES, before_seq=seq + 1)
        if not entries or entries[0].seq != seq:
            return StatementView(())
        return replace(await self._view(account_id, entries), found_seq=seq)

    async def _seq_of(self, account_id: str, words: str) -> int | None:
        if re.fullmatch(r"[0-9]{1,16}", words) and int(words) < MAX_INTEGER:
            return int(words)
        if re.fullmatch(r"[0-9a-f]{64}", words):
            return await self.ledger.find_item(account_id, words)
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", words, re.ASCII):
            return await self.ledger.seq_at(account_id, _micro(_day_after(words)) - 1)
        if re.fullmatch(r"[\w-]{1,64}", words, re.ASCII):
            posted = await self.ledger.find_request(account_id, words)
            return None if posted is None else posted.entry.seq
        raise InvalidRequest("look for an entry's number, a day such as 2026-11-30, a request's id or an item's key")

    async def _view(self, account_id: str, entries: list[LedgerEntry]) -> StatementView:
        if not entries:
            return StatementView(())
        newest, oldest = entries[0].seq, entries[-1].seq
        head = await self.ledger.head(account_id)
        return StatementView(
            tuple(entries),
            newer_than=newest if newest < head.seq else None,
            older_than=oldest if oldest > 1 else None,
        )


def _day_after(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + _DAY
    except (OverflowError, ValueError):
        raise InvalidRequest(f"{text} is no day; give one such as 2026-11-30") from None


def _micro(moment: datetime) -> int:
    return round(moment.timestamp()) * _MICRO
