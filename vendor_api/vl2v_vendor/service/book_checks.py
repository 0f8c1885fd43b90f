"""The accounts, API keys and prices as they are, against the log of the acts that made them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vl2v_vendor.service.verification import VerificationReport

Row = Mapping[str, Any]
Rows = Mapping[object, Row]
"""By id."""


@dataclass(eq=False, slots=True)
class LoggedRows:
    """Replays the log; acts of before a column was logged say nothing of it.

    Attributes:
        stored_prices: Prices as they are. The log has several of one act, without the id of each.
    """

    stored_prices: Rows
    accounts: dict[object, Row] = field(default_factory=dict)
    keys: dict[object, Row] = field(default_factory=dict)
    prices: dict[object, Row] = field(default_factory=dict)

    def take(self, act: str, asked: Row, outcome: Row, now: int) -> None:
        """Do an act again; raises KeyError, TypeError or ValueError if it is none that the vendor logs."""
        if act == "create_account":
            terms = {name: asked[name] for name in ("name", "currency")}
            self.accounts[outcome["account_id"]] = {**terms, "created_at": now}
        elif act == "create_key":
            lifetime = asked.get("lifetime_seconds")
            self.keys[outcome["api_key_id"]] = {
                **{name: asked[name] for name in ("account_id", "name", "limit_units")},
                **{name: outcome[name] for name in ("credential_sha256",) if name in outcome},
                "scopes": " ".join(asked["scopes"]),
                "created_at": now,
                "expires_at": asked["expires_at"] if lifetime is None else now + lifetime * 1_000_000,
                "revoked_at": None,
            }
        elif act == "revoke_key":
            key = self.keys.get(outcome["api_key_id"], {})
            if key and key["revoked_at"] is None:
                self.keys[outcome["api_key_id"]] = {**key, "revoked_at": now}
        elif act == "set_price":
            self.prices[outcome["id"]] = {**asked, "valid_from": now}
        elif act == "ensure_prices":
            terms, micro = {name: asked[name] for name in ("model_id", "currency")}, dict(asked["prices"])
            for price_id in outcome["inserted_price_ids"]:
                modality = self.stored_prices.get(price_id, {}).get("modality")
                terms |= {"modality": modality, "unit_price_micro": micro.get(modality), "valid_from": now}
                self.prices[price_id] = dict(terms)


def check_staff_log(
    acts: Iterable[tuple[int, str, str, str, int]], found: Mapping[str, Rows], report: VerificationReport
) -> None:
    """Report rows that no act made, that are not as their act says, and that an act made and are gone.

    Args:
        acts: Id, name, parameters and outcome (JSON), and time of each act, in order.
        found: Rows of each kind: `account`, `key` (with `limit_units` and `credential_sha256`) and `price`.
        report: Gets the problems.
    """
    logged = LoggedRows(found["price"])
    for act_id, act, parameters, outcome, now in acts:
        try:
            logged.take(act, json.loads(parameters), json.loads(outcome), now)
        except (AttributeError, KeyError, TypeError, ValueError):
            report.add(None, None, "unreadable_act", f"act {act_id} of the staff's log is no {act}")
    for kind, expected in {"account": logged.accounts, "key": logged.keys, "price": logged.prices}.items():
        for row_id, row in found[kind].items():
            wrong = [name for name, value in expected.get(row_id, {}).items() if row[name] != value]
            if row_id not in expected:
                report.add(None, None, f"unlogged_{kind}", f"{kind} {row_id} is in no act of the staff's log")
            elif wrong:
                says = f"{', '.join(wrong)} of {kind} {row_id} is not what the staff's log says"
                report.add(None, None, f"{kind}_mismatch", says)
        for row_id in expected:
            if row_id not in found[kind]:
                report.add(None, None, f"missing_{kind}", f"the staff's log has {kind} {row_id}, which is gone")
