"""The accounts, API keys and prices as they are, against the log of the acts that made them."""

import json
from typing import Any

from sqlalchemy import Connection, select

from vl2v_vendor.domain.accounts import secret_sha256
from vl2v_vendor.ledger_sql.tables import accounts, admin_log, api_keys, budgets, prices
from vl2v_vendor.service.verification import VerificationReport

Rows = dict[Any, dict[str, Any]]


def check_staff_rows(connection: Connection, report: VerificationReport) -> None:
    """Report rows that no act made, that are not as their act says, and that an act made and are gone."""
    keys = select(*api_keys.c, budgets.c.limit_units).outerjoin(budgets, budgets.c.api_key_id == api_keys.c.id)
    queries = {"account": select(*accounts.c), "key": keys, "price": select(*prices.c)}
    found = {kind: {row.id: dict(row._mapping) for row in connection.execute(query)} for kind, query in queries.items()}
    for key in found["key"].values():
        key["credential_sha256"] = secret_sha256(f"{key['prefix']} {key['secret_sha256']}")
    logged: dict[str, Rows] = {kind: {} for kind in queries}
    for act in connection.execute(select(admin_log).order_by(admin_log.c.id)):
        try:
            _repeat(act, logged, found["price"])
        except (AttributeError, KeyError, TypeError, ValueError):
            report.add(None, None, "unreadable_act", f"act {act.id} of the staff's log is no {act.act}")
    for kind, rows in logged.items():
        for row_id in {**rows, **found[kind]}:
            expected, row = rows.get(row_id), found[kind].get(row_id)
            if expected is None:
                report.add(None, None, f"unlogged_{kind}", f"{kind} {row_id} is in no act of the staff's log")
            elif row is None:
                report.add(None, None, f"missing_{kind}", f"{kind} {row_id} of the staff's log is gone")
            elif wrong := [name for name, value in expected.items() if row[name] != value]:
                report.add(None, None, f"{kind}_mismatch", f"{', '.join(wrong)} of {kind} {row_id}: not as logged")


def _repeat(row_of_log: Any, logged: dict[str, Rows], stored_prices: Rows) -> None:
    """Do an act again. Which of its prices got which id is not logged."""
    act, now = row_of_log.act, row_of_log.created_at
    asked, outcome = json.loads(row_of_log.parameters), json.loads(row_of_log.outcome)
    if act == "create_account":
        row = {"name": asked["name"], "currency": asked["currency"], "created_at": now}
        logged["account"][outcome["account_id"]] = row
    elif act == "create_key":
        row = {name: asked[name] for name in ("account_id", "name", "limit_units", "expires_at")}
        if (lifetime := asked.get("lifetime_seconds")) is not None:
            row["expires_at"] = now + lifetime * 1_000_000
        row |= {"scopes": " ".join(asked["scopes"]), "created_at": now, "revoked_at": None}
        if "credential_sha256" in outcome:  # version 0.1 did not log it
            row["credential_sha256"] = outcome["credential_sha256"]
        logged["key"][outcome["api_key_id"]] = row
    elif act == "revoke_key":
        key = logged["key"].get(outcome["api_key_id"], {})
        key["revoked_at"] = key.get("revoked_at") or now
    elif act == "set_price":
        logged["price"][outcome["id"]] = {**asked, "valid_from": now}
    elif act == "ensure_prices":
        row = {"model_id": asked["model_id"], "currency": asked["currency"], "valid_from": now}
        for price_id in outcome["inserted_price_ids"]:
            modality = stored_prices.get(price_id, {}).get("modality")
            terms = {"modality": modality, "unit_price_micro": dict(asked["prices"]).get(modality)}
            logged["price"][price_id] = row | terms
