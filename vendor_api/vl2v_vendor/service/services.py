"""Everything that the web layer serves with, built in one place and handed over whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from vl2v_vendor.domain.admission import Limits
from vl2v_vendor.domain.encoder import Encoder
from vl2v_vendor.domain.ports import Ledger
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.service.administration import Administration
from vl2v_vendor.service.audit import Audit
from vl2v_vendor.service.authentication import Authenticator
from vl2v_vendor.service.selling import Seller

ReadinessCheck = Callable[[], Awaitable[None]]
"""Returns when all is well; raises otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The use cases and the ports that routes read from.

    Attributes:
        readiness: Named checks, all of which must pass before traffic is sent here.
    """

    ledger: Ledger
    encoder: Encoder
    lanes: EncodingLanes
    limits: Limits
    authenticator: Authenticator
    seller: Seller
    audit: Audit
    administration: Administration
    readiness: Mapping[str, ReadinessCheck] = field(default_factory=dict)
