"""Everything the vendor can refuse, as a tree. `web/problems.py` maps each class to a status and an `ErrorCode`.

Messages name the item and the remedy, and hold no secret and no input.
"""

from collections.abc import Mapping


class VendorError(Exception):
    """Base of every refusal."""


class InvalidRequest(VendorError):
    """The request is malformed; nothing was computed or billed."""


class TooManyItems(InvalidRequest):
    """More items than one request may hold."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"{count} items in one request; send at most {limit}")


class PayloadTooLarge(InvalidRequest):
    """More bytes than one request may hold."""


class BodyStalled(InvalidRequest):
    """The body began and did not go on, or not fast enough."""


class UnsupportedMediaType(InvalidRequest):
    """The body is in no form that this endpoint reads."""


class UnknownModel(InvalidRequest):
    """No such model is on sale."""


class NotFound(InvalidRequest):
    """No such thing in this account."""


class UnknownKey(VendorError):
    """No API key, or one that was never issued."""

    def __init__(self, message: str = "no valid API key; send `Authorization: Bearer vl2v_...`") -> None:
        super().__init__(message)


class KeyRevoked(VendorError):
    """The API key was revoked."""


class KeyExpired(VendorError):
    """The API key has expired."""


class Forbidden(VendorError):
    """The API key lacks a scope."""


class BudgetExhausted(VendorError):
    """A budget cannot hold the request. Final until the limit is raised."""

    def __init__(self, *, budget: str, limit_units: int, remaining_units: int, wanted_units: int) -> None:
        super().__init__(
            f"the {budget} budget has {remaining_units} of {limit_units} queries left and this request needs "
            f"{wanted_units}; ask the vendor for a top-up, or send fewer new items"
        )
        self.budget = budget
        self.limit_units = limit_units
        self.remaining_units = remaining_units


class PriceChanged(VendorError):
    """The price that the client agreed to is no longer in force."""


class Unavailable(VendorError):
    """Cannot be served now; the same request may succeed after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(Unavailable):
    """Too much that is free at once; paid work is not limited."""


class Overloaded(Unavailable):
    """The queue is full."""


class ModelUnavailable(Unavailable):
    """The model process is starting, stuck or dead."""


class LedgerUnavailable(Unavailable):
    """The ledger cannot be read or written, so nothing is sold."""


class OutcomeUnknown(LedgerUnavailable):
    """A charge of unnamed items, or an act without a name, may or may not have been recorded: do not just repeat it."""

    def __init__(
        self,
        message: str = (
            "the ledger did not confirm this purchase in time; before you send it again look into "
            "/v1/billing/statement. With an `item_key` per item, or an `Idempotency-Key`, a retry is always safe"
        ),
    ) -> None:
        super().__init__(message)


class EncodingFailed(VendorError):
    """The model could not encode a batch; it is ready for the next one."""


class ModelLoadFailed(VendorError):
    """The configured model cannot be loaded. The message names the file or the name, and the remedy."""


class ItemFailure(VendorError):
    """One item cannot become a vector. `code` is one of the contract's item error codes."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class ItemsFailed(VendorError):
    """Items failed of a request that is sold whole or not at all.

    Args:
        failures: Failures by position in the request.
        charged_seq: Ledger entry that nevertheless charged the others, because what failed showed itself only when
            another request under the same name was charged at the same moment.
    """

    def __init__(self, failures: Mapping[int, ItemFailure], charged_seq: int | None = None) -> None:
        position, first = next(iter(failures.items()))
        others = f", and {len(failures) - 1} more failed" if len(failures) > 1 else ""
        billed = (
            "nothing was billed"
            if charged_seq is None
            else f"ledger entry {charged_seq} charged the others, which /v1/embeddings/replay delivers free"
        )
        super().__init__(f"item {position}: {first.detail}{others}; {billed}")
        self.failures = failures
