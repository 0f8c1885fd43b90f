"""Everything that the web layer serves with, built in one place and handed over whole."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from vl2v_vendor.domain.accounts import ApiKey, Scope, secret_sha256
from vl2v_vendor.domain.encoder import Encoder, Limits
from vl2v_vendor.domain.errors import UnknownKey
from vl2v_vendor.domain.ports import Clock, Ledger
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.observe.request_trace import note, timed
from vl2v_vendor.service.administration import Administration
from vl2v_vendor.service.audit import Audit
from vl2v_vendor.service.selling import Seller


@dataclass(eq=False, slots=True)
class Authenticator:
    """Looks every key up in the ledger's database: a revoked key stops working at once, on every replica."""

    ledger: Ledger
    clock: Clock

    async def authenticate(self, secret: str | None, scope: Scope) -> ApiKey:
        """Return the API key whose secret this is, if it may act under `scope`.

        Raises:
            UnknownKey: There is no secret, or it was never issued.
            KeyRevoked: The key was revoked.
            KeyExpired: The key has expired.
            Forbidden: The key lacks the scope.
        """
        if not secret:
            raise UnknownKey
        return await self.recognise(secret_sha256(secret), scope)

    async def recognise(self, credential_sha256: str, scope: Scope) -> ApiKey:
        """Return the API key whose secret has this SHA-256 (hex), if it may act under `scope` now.

        Raises:
            UnknownKey: No such key was issued.
            KeyRevoked: The key was revoked.
            KeyExpired: The key has expired.
            Forbidden: The key lacks the scope.
        """
        with timed("commit"):
            key = await self.ledger.find_key(credential_sha256)
        if key is None:
            raise UnknownKey
        note(api_key_id=key.id, account_id=key.account_id)
        key.require(scope, now=self.clock.now())
        return key


ReadinessCheck = Callable[[], Awaitable[None]]
"""Returns when all is well; raises otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The use cases and the ports that routes read from.

    Attributes:
        page_secret: Secret of the pages' sessions and forms, the same on every replica.
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
    page_secret: bytes = field(repr=False)
    readiness: Mapping[str, ReadinessCheck] = field(default_factory=dict)
