"""Everything the client can stop for; each class has the exit code that the command ends with.

Every message names the item and the remedy. `vl2v-client audit` ends with 0 clean, 1 differences found, 2 could not
verify, 3 charges of other software and no difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from vl2v_contract.texts import printable

INTERRUPTED_EXIT_CODE = 130
INTERRUPTED = "interrupted; nothing bought is lost, and the same command goes on from here"


class ClientError(Exception):
    """Base of everything the client reports without a traceback."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """Return the message, in which words of others steer no terminal, wherever it is printed."""
        return printable(super().__str__(), keep="\n")


class UsageError(ClientError):
    """The command's words do not fit together."""

    exit_code = 2


class DataError(ClientError):
    """The data set, or a file in it, cannot be used."""

    exit_code = 3


class BrokenFile(DataError):
    """An image file cannot be read or decoded, or holds pixels that nothing can be made of."""


@dataclass(frozen=True, slots=True)
class FailedQuery:
    """A query that got no vector, for which nothing was charged; `name` says which file, picture or text."""

    name: str
    code: str
    detail: str


class QueriesFailed(DataError):
    """Some queries got no vector, for which nothing was charged; everything else is bought and kept.

    Attributes:
        failed: Which, and why.
    """

    def __init__(self, message: str, failed: Sequence[FailedQuery]) -> None:
        super().__init__(message)
        self.failed = tuple(failed)


class VendorError(ClientError):
    """The vendor refused, or answered what it should not.

    Attributes:
        code: The vendor's stable error code, if it sent one.
        request_id: To quote to the vendor, if it sent one.
        was_refused: Nothing was charged: the vendor refused the request at every attempt, or it was never sent.
    """

    exit_code = 4

    def __init__(self, message: str, *, code: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message if request_id is None else f"{message} (request {request_id})")
        self.code = code
        self.request_id = request_id
        self.was_refused = False


class VendorUnavailable(VendorError):
    """The vendor cannot be reached or asks to come back later; running the command again goes on."""


class NotAuthorized(VendorError):
    """No API key, or one that the vendor refuses."""

    exit_code = 5


class BudgetExhausted(VendorError):
    """The vendor's budget, or a local cap, cannot hold the purchase. Nothing bought so far is lost.

    Attributes:
        units: New queries that were to be bought; `None` if a request was refused, which does not know of the rest.
        left: How many of them caps and budget held before; `None` if nobody says.
    """

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        units: int | None = None,
        left: int | None = None,
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.units = units
        self.left = left


class NotApproved(ClientError):
    """A purchase that nobody has approved. Nothing was sent.

    Attributes:
        units: New queries that it would buy.
        amount_micro: Price of them, in micro-units of the currency.
        currency: Three letters, such as `EUR`.
    """

    def __init__(self, message: str, *, units: int, amount_micro: int, currency: str) -> None:
        super().__init__(message)
        self.units = units
        self.amount_micro = amount_micro
        self.currency = currency


class VendorChanged(VendorError):
    """The vendor behind the URL, its model, its signing key or its price is not the one agreed to."""

    exit_code = 7


class CacheError(ClientError):
    """The local cache cannot be read or written: disk full, locked, damaged."""

    exit_code = 8


class RunError(ClientError):
    """The run folder cannot be used: it exists with other settings, is incomplete, or unreadable."""

    exit_code = 9


class Diverged(RunError):
    """A training's loss is not finite: its learning rate is too high."""
