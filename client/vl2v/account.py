"""The bill at a glance."""

from dataclasses import dataclass

from vl2v_client.core.html_tables import html_table
from vl2v_client.core.progress import format_micro
from vl2v_contract.records import Summary


@dataclass(frozen=True)
class Bill:
    """What the vendor has charged to the account, as the vendor tells it; `Client.audit` verifies it.

    Attributes:
        summary: All totals: by day, model, endpoint and key.
    """

    summary: Summary

    @property
    def units(self) -> int:
        """Queries charged, less those refunded."""
        return self.summary.used_units

    @property
    def left(self) -> int:
        """Queries that the budget still holds."""
        return self.summary.remaining_units

    @property
    def amount_micro(self) -> int:
        """Price of the queries charged, in micro-units of the currency."""
        return self.summary.total.amount_micro

    @property
    def currency(self) -> str:
        """Currency of every amount."""
        return self.summary.currency

    def __str__(self) -> str:
        spent = format_micro(self.amount_micro, self.currency)
        return f"{self.units:,} queries, {spent}; {self.left:,} left"

    def _repr_html_(self) -> str:
        rows = [("all", self.units, self.amount_micro)]
        for part in (self.summary.by_day, self.summary.by_model):
            rows += [(one.name, one.units, one.amount_micro) for one in part]
        cells = [(name, f"{units:,}", format_micro(micro, self.currency)) for name, units, micro in rows]
        title = f"Bill of {self.summary.account_id}: {self.left:,} queries left"
        return html_table(title, cells, ("", "queries", "price"))
