"""Whoever has the port and no key: connections, heads and strange requests by the thousand harm no customer."""

from __future__ import annotations

import pytest

from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import Size
from support.proofs.siege import Siege
from support.proofs.siege_verdicts import Judge

ATTACKS = {
    "half_sent_heads": {"closed", "503"},
    "half_sent_heads_of_many": {"closed", "503"},
    "idle_connections": {"closed", "503"},
    "dripping_heads": {"closed", "400", "503"},
    "huge_heads": {"closed", "400", "431"},
    "churn": {"closed"},
    "unread_answers": {"closed"},
    "strange_requests": {"400"},
    "wrong_keys": {"401", "503"},
    "bodies_without_a_key": {"401", "closed"},
}
"""Each attack, and how its acts may end."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("attack", ATTACKS)
def test_who_has_the_port_alone_delays_nobody(
    attack: str, siege: Siege, size: Size, prove: Prove, prove_speed: Prove
) -> None:
    Judge(prove, prove_speed, size).withstands(siege, attack, ATTACKS[attack])


@pytest.mark.timeout(600)
def test_after_all_of_it_memory_bill_and_log_are_as_before(
    siege: Siege, size: Size, prove: Prove, prove_speed: Prove
) -> None:
    Judge(prove, prove_speed, size).is_unharmed(siege)
