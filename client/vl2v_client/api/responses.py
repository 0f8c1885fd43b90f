"""From the wire's answers to the client's values, or to an error that says what to do; the wire stops here."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from vl2v_client.api.addresses import is_untrusted
from vl2v_client.core.errors import BudgetExhausted, NotAuthorized, VendorChanged, VendorError, VendorUnavailable
from vl2v_client.core.values import MAX_IMAGE_SIZE, MAX_LOGIT_SCALE, MAX_WIDTH, PriceTag, TeacherModel
from vl2v_contract.chain import ChargedItem, LedgerEntry
from vl2v_contract.identity import MAX_INTEGER, Modality
from vl2v_contract.vectors import FloatVector
from vl2v_contract.wire.embeddings import EmbeddingsResponse, ModelCard
from vl2v_contract.wire.errors import ErrorCode, Problem
from vl2v_contract.wire.frames import ContractError, unpack_answer
from vl2v_contract.wire.headers import OCTET_STREAM

Message = TypeVar("Message")

_CURRENCY = re.compile("[A-Z]{3}")
_KEY_SOURCE = "give the API key, or set VL2V_API_KEY; the vendor issues keys"
_MOST_FAULTS = 100
_NOT_AUTHORIZED = {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}

_reader_of: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""Reader of a message; to build one takes longer than to read a page."""


class AllItemsFailed(VendorError):
    """Every item of a request failed on its own; nothing was billed. `items` says why, one by one."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail, code=str(problem.code), request_id=problem.request_id)
        self.items = problem.items


def problem_error(response: httpx.Response, url: str) -> VendorError:
    """Return the error that an answer outside 2xx stands for."""
    try:
        problem = Problem.model_validate(from_json(response.content))
    except ValueError:
        return _foreign_error(response, url)
    kind: type[VendorError] = VendorError
    if response.status_code == httpx.codes.PAYMENT_REQUIRED:
        return _budget_error(problem)
    if response.status_code in _NOT_AUTHORIZED:
        kind, message = NotAuthorized, f"the vendor at {url} refused the API key: {problem.detail}; {_KEY_SOURCE}"
    elif problem.code is ErrorCode.PRICE_CHANGED:
        kind = VendorChanged
        message = f"the vendor's price has changed and nothing was bought: {problem.detail}; plan again to see it"
    elif problem.code is ErrorCode.ALL_ITEMS_FAILED:
        return AllItemsFailed(problem)
    elif problem.retryable:
        kind = VendorUnavailable
        message = f"the vendor cannot serve this now: {problem.detail}; run the same command again to go on"
    else:
        items = "".join(f"; item {item.index}: {item.detail}" for item in problem.items[:3])
        message = f"the vendor refused the request: {problem.detail}{items}"
    return kind(message, code=str(problem.code), request_id=problem.request_id)


def _budget_error(problem: Problem) -> BudgetExhausted:
    left = "" if problem.remaining_units is None else f" ({problem.remaining_units} queries left)"
    return BudgetExhausted(
        f"the vendor's {problem.budget or 'account'} budget is exhausted{left}: {problem.detail}. "
        "Everything bought so far is kept; after a top-up run the same command again",
        code=str(problem.code),
        request_id=problem.request_id,
        left=problem.remaining_units,
    )


def no_answer_error(error: httpx.RequestError, url: str) -> VendorError:
    """Return the error for a request that never got a whole answer."""
    if is_untrusted(error):
        why = f"the certificate of {url} is not signed by an authority known here ({error})"
        return VendorUnavailable(f"{why}: name the file of the vendor's authority in SSL_CERT_FILE")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return VendorUnavailable(
            f"no vendor answers at {url} ({error}): is it running at purchase.vendor_url, or VL2V_VENDOR_URL?"
        )
    if isinstance(error, httpx.TimeoutException):
        return VendorUnavailable(f"the vendor at {url} did not answer in time; run the same command again to go on")
    return VendorUnavailable(f"the connection to the vendor at {url} broke ({error}); run the same command again")


def wrong_scheme_error(url: str, other: str) -> VendorError:
    """Return the error for an address at which the other scheme answers."""
    scheme = url.partition(":")[0]
    return VendorError(f"there is no {scheme} at {url}, but {other} answers: give that as purchase.vendor_url")


def not_a_vendor(url: str, what: str) -> VendorError:
    """Return the error for a server that does not speak this wire."""
    return VendorError(f"{url} is not a VL2V vendor of this version ({what}); check purchase.vendor_url")


def _foreign_error(response: httpx.Response, url: str) -> VendorError:
    status, path = response.status_code, response.request.url.path
    if status in _NOT_AUTHORIZED:
        return NotAuthorized(f"{url} refused the request with {status}; {_KEY_SOURCE}")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
        return VendorUnavailable(f"{url} answered {path} with {status}; run the same command again to go on")
    return not_a_vendor(url, f"{path} answered {status} {response.headers.get('content-type', 'without a type')}")


def parse(response: httpx.Response, kind: type[Message], url: str) -> Message:
    """Read a 2xx answer.

    Raises:
        VendorError: The body is no such message, so this is no vendor, or one of another version.
    """
    try:
        # In two steps: in one, pydantic copies an object for each field that it lacks.
        message: Message = _reader_of(kind).validate_python(from_json(response.content))
        return message
    except ValueError as error:
        raise not_a_vendor(url, f"{response.request.url.path}: {_fault_of(error)}") from error


def _fault_of(error: ValueError) -> str:
    """Return the first fault, or their number where to list them would take memory that nobody bounds."""
    if not isinstance(error, ValidationError):
        return f"the body: Invalid JSON: {error}"
    if error.error_count() > _MOST_FAULTS:
        return f"{error.error_count():,} faults"
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the body"
    return f"{place}: {first['msg']}"


def read_answer(response: httpx.Response, url: str) -> tuple[EmbeddingsResponse, Mapping[int, FloatVector] | None]:
    """Read a 2xx answer to a request for embeddings: the message, and raw vectors `[D]` by position if it is framed.

    Raises:
        VendorError: The body is neither the message nor a frame of it.
    """
    if response.headers.get("content-type") != OCTET_STREAM:
        return parse(response, EmbeddingsResponse, url), None
    try:
        return unpack_answer(response.content)
    except ContractError as error:
        raise not_a_vendor(url, f"{response.request.url.path}: {error}") from error


def teacher_of(card: ModelCard) -> TeacherModel:
    """Return the model that a card describes.

    Raises:
        VendorError: A price is missing, or something about it or the model cannot be.
    """
    sizes = (card.embedding_dim, card.image_size, card.limits.max_items, card.limits.max_request_bytes)
    is_possible = (
        all(1 <= size <= MAX_INTEGER for size in sizes)
        and card.image_size <= MAX_IMAGE_SIZE
        and card.embedding_dim <= MAX_WIDTH
        and 0 < card.logit_scale <= MAX_LOGIT_SCALE
        and abs(card.logit_bias) <= MAX_LOGIT_SCALE
    )
    if not is_possible:
        raise VendorError(f"the vendor's model {card.id} has a size or limit that cannot be; ask the vendor")
    return TeacherModel(
        **card.model_dump(include={field.name for field in fields(TeacherModel)}),
        image_price=_price_of(card, "image"),
        text_price=_price_of(card, "text"),
        max_items=card.limits.max_items,
        max_request_bytes=card.limits.max_request_bytes,
    )


def check_numbers(entry: LedgerEntry, items: Sequence[ChargedItem]) -> None:
    """Check that canonical JSON can hold every number of an entry and its items; else nothing could be verified.

    Raises:
        VendorError: It cannot.
    """
    counts = (entry.seq, entry.units, entry.unit_price_micro, entry.amount_micro, entry.used_units, entry.limit_units)
    references = (entry.price_id or 0, entry.ref_seq or 0, entry.created_at)
    if not all(0 <= number <= MAX_INTEGER for number in (*counts, *references, *(item.units for item in items))):
        raise VendorError(f"the vendor's entry {entry.seq} holds a number that cannot be; ask the vendor")


def _price_of(card: ModelCard, modality: Modality) -> PriceTag:
    for price in card.prices:
        if price.modality != modality:
            continue
        if max(price.price_id, price.unit_price_micro) <= MAX_INTEGER and _CURRENCY.fullmatch(price.currency):
            return PriceTag(price.price_id, price.unit_price_micro, price.currency)
    raise VendorError(
        f"the vendor's model {card.id} has no price for {modality} queries that can be; ask the vendor to set one"
    )
