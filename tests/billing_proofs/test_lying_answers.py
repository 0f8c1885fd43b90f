"""A vendor that lies as it sells: the answer is refused, the audit says what is left, and nothing is paid twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.adversary.lying_answers import REFUSED, Change, LyingAnswers, receipt
from support.adversary.lying_vendor import Body
from support.client.buying_bench import buy, meet_vendor
from support.ledger.honest_books import MODEL, Party
from support.vendor.vendor_in_process import InProcessVendor, open_vendor, vendor_settings
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import NotAuthorized, VendorError
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_contract.records import SigningKey
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES

ANSWERS = "/v1/embeddings/texts"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[InProcessVendor]:
    with open_vendor(vendor_settings(tmp_path_factory.mktemp("vendor"), migrated_sqlite)) as opened:
        yield opened


@pytest.fixture
def party(vendor: InProcessVendor, tmp_path: Path) -> Party:
    account = vendor.accounts.create_account(tmp_path.name, budget_units=100)
    secret = vendor.accounts.create_key(account, scopes=DEFAULT_SCOPES)[1]
    return Party(str(secret), tmp_path / "client.db")


def try_to_buy(party: Party, vendor: InProcessVendor, change: Change, path: str = ANSWERS) -> None:
    liar = LyingAnswers(vendor.transport, vendor.signing_keys, path, change)
    with EmbeddingCache(party.cache) as cache, party.connect(liar) as client:
        plan = make_plan([], [TextQuery("a"), TextQuery("b")], meet_vendor(client, cache), cache)
        buy(plan, client, cache, workers=1)


def audit(party: Party, vendor: InProcessVendor, *, recover: bool = False) -> AuditReport:
    with EmbeddingCache(party.cache) as cache, party.connect(vendor.transport) as client:
        return audit_bill(client, cache, recover=recover, settle_seconds=0)


def found(report: AuditReport) -> dict[str, int]:
    return {str(kind): count for kind, count in report.findings.counts.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_a_lying_answer_is_refused_and_its_items_come_free(vendor: InProcessVendor, party: Party, name: str) -> None:
    with pytest.raises(VendorError):
        try_to_buy(party, vendor, REFUSED[name])
    assert found(audit(party, vendor)) == {"lost_response": 2}
    report = audit(party, vendor, recover=True)
    assert (report.is_clean, report.recovered_items, report.units) == (True, 2, 2)


def test_a_receipt_in_another_accounts_name_is_named(vendor: InProcessVendor, party: Party) -> None:
    try_to_buy(party, vendor, receipt(account_id="acct_other"))
    assert "chain_break" in found(audit(party, vendor))


def test_a_price_table_that_names_two_values_of_one_price_is_named(vendor: InProcessVendor, party: Party) -> None:
    def cheaper(body: Body, _keys: list[SigningKey]) -> None:
        for card in body.get("data", [body]):
            for price in card["prices"]:
                price["unit_price_micro"] -= 5

    liar = LyingAnswers(vendor.transport, [], "/v1/models", cheaper)
    also = LyingAnswers(liar, [], f"/v1/models/{MODEL}", cheaper)
    try_to_buy(party, vendor, lambda _body, _keys: None)
    assert audit(party, vendor).is_clean
    with EmbeddingCache(party.cache) as cache, party.connect(also) as client:
        plan = make_plan([], [TextQuery("c")], meet_vendor(client, cache), cache)
        with pytest.raises(VendorError):
            buy(plan, client, cache, workers=1)
    assert found(audit(party, vendor)) == {"price_mismatch": 1}


def test_a_key_without_the_scope_is_told_which_one_is_missing(
    vendor: InProcessVendor, party: Party, tmp_path: Path
) -> None:
    account = vendor.accounts.find_account(tmp_path.name)
    secret = vendor.accounts.create_key(account, scopes=frozenset({"embed"}))[1]
    with pytest.raises(NotAuthorized, match="billing"):
        audit(Party(str(secret), party.cache), vendor)
