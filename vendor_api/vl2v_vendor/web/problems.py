"""One table from refusals to answers: RFC 9457 problems with a status, a stable code, and whether a retry can help."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from vl2v_contract.wire import headers
from vl2v_contract.wire.errors import RETRYABLE_CODES, ErrorCode, ItemProblem, Problem
from vl2v_vendor.domain import errors
from vl2v_vendor.domain.errors import BudgetExhausted, ItemFailure, OutcomeUnknown, Unavailable, VendorError
from vl2v_vendor.observe.request_trace import note

_REFUSALS: Final[dict[type[VendorError], tuple[int, ErrorCode]]] = {
    errors.InvalidRequest: (422, ErrorCode.INVALID_REQUEST),
    errors.TooManyItems: (422, ErrorCode.TOO_MANY_ITEMS),
    errors.PayloadTooLarge: (413, ErrorCode.PAYLOAD_TOO_LARGE),
    errors.BodyStalled: (408, ErrorCode.REQUEST_TIMEOUT),
    errors.UnsupportedMediaType: (415, ErrorCode.UNSUPPORTED_MEDIA_TYPE),
    errors.UnknownModel: (404, ErrorCode.UNKNOWN_MODEL),
    errors.NotFound: (404, ErrorCode.NOT_FOUND),
    errors.UnknownKey: (401, ErrorCode.UNAUTHENTICATED),
    errors.KeyRevoked: (401, ErrorCode.KEY_REVOKED),
    errors.KeyExpired: (401, ErrorCode.KEY_EXPIRED),
    errors.Forbidden: (403, ErrorCode.FORBIDDEN),
    errors.BudgetExhausted: (402, ErrorCode.BUDGET_EXHAUSTED),
    errors.PriceChanged: (409, ErrorCode.PRICE_CHANGED),
    errors.RateLimited: (429, ErrorCode.RATE_LIMITED),
    errors.Overloaded: (503, ErrorCode.OVERLOADED),
    errors.ModelUnavailable: (503, ErrorCode.MODEL_UNAVAILABLE),
    errors.LedgerUnavailable: (503, ErrorCode.LEDGER_UNAVAILABLE),
}

_STATUS_CODES: Final[dict[int, ErrorCode]] = {
    404: ErrorCode.NOT_FOUND,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
}

_ALL_FAILED_STATUS: Final = 422
_INTERNAL: Final = 500
_INTERNAL_DETAIL: Final = "an internal error; send it again with the same item keys: what was billed comes free"
_MAX_REPORTED_FAULTS: Final = 5
_MAX_NAME_LENGTH: Final = 40


class AllItemsFailed(VendorError):
    """No item of a well-formed request could be sold; each one's own error is listed."""

    def __init__(self, failures: Mapping[int, ItemFailure]) -> None:
        super().__init__(f"all {len(failures)} items failed and nothing was billed; see `items`")
        self.failures = failures


def status_and_code(error: Exception) -> tuple[int, ErrorCode]:
    """Return the status and code of a refusal; anything that is not a refusal is an internal error."""
    if isinstance(error, AllItemsFailed):
        return _ALL_FAILED_STATUS, ErrorCode.ALL_ITEMS_FAILED
    for kind in type(error).__mro__:
        if kind in _REFUSALS:
            return _REFUSALS[kind]
    return _INTERNAL, ErrorCode.INTERNAL


def make_problem(error: Exception, request_id: str) -> Problem:
    """Build the problem document of any exception. An unknown exception's own text stays inside."""
    status, code = status_and_code(error)
    detail = str(error) if code is not ErrorCode.INTERNAL else _INTERNAL_DETAIL
    problem = _problem(status, code, detail, request_id)
    if isinstance(error, BudgetExhausted):
        return problem.model_copy(
            update={
                "budget": error.budget,
                "limit_units": error.limit_units,
                "remaining_units": error.remaining_units,
            }
        )
    if isinstance(error, OutcomeUnknown):
        return problem.model_copy(update={"retryable": False})
    if isinstance(error, AllItemsFailed):
        items = [
            ItemProblem(index=index, code=ErrorCode(failure.code), detail=failure.detail)
            for index, failure in error.failures.items()
        ]
        retryable = any(item.code in RETRYABLE_CODES for item in items)
        return problem.model_copy(update={"items": items, "retryable": retryable})
    return problem


def problem_response(problem: Problem, extra_headers: Mapping[str, str] | None = None) -> Response:
    """Build the answer that carries a problem."""
    note(problem=problem.code.value)
    sent = {**refusal_headers(problem), **(extra_headers or {})}
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status_code=problem.status, headers=sent, media_type=headers.PROBLEM_JSON)


def refusal_headers(problem: Problem, error: Exception | None = None) -> dict[str, str]:
    """Return the headers of a refusal: whether and when to try again, and how to authenticate."""
    sent = {headers.SHOULD_RETRY: "true" if problem.retryable else "false"}
    if isinstance(error, Unavailable) and problem.retryable:
        sent[headers.RETRY_AFTER] = str(error.retry_after_seconds)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = "Bearer"
    return sent


def add_error_handlers(app: FastAPI) -> None:
    """Turn every refusal, FastAPI's own included, into a problem."""
    app.add_exception_handler(VendorError, _handle_refusal)
    app.add_exception_handler(RequestValidationError, _handle_invalid)
    app.add_exception_handler(HTTPException, _handle_http)


def describe_faults(faults: list[dict[str, object]]) -> str:
    """Join Pydantic's findings to one sentence that repeats no input."""
    named = [f"{_location(fault['loc'])}: {fault['msg']}" for fault in faults[:_MAX_REPORTED_FAULTS]]
    more = len(faults) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


async def _handle_refusal(request: Request, error: Exception) -> Response:
    problem = make_problem(error, request.state.request_id)
    if problem.code is ErrorCode.INTERNAL:
        raise error  # not meant for a caller: the middleware logs it and answers
    return problem_response(problem, refusal_headers(problem, error))


async def _handle_invalid(request: Request, error: Exception) -> Response:
    faults = list(error.errors()) if isinstance(error, RequestValidationError) else []
    detail = describe_faults(faults)
    return problem_response(_problem(422, ErrorCode.INVALID_REQUEST, detail, request.state.request_id))


async def _handle_http(request: Request, error: Exception) -> Response:
    """Answer Starlette's own refusals: no such route, wrong method."""
    status = error.status_code if isinstance(error, HTTPException) else _INTERNAL
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    code = _STATUS_CODES.get(status, ErrorCode.INVALID_REQUEST if status < _INTERNAL else ErrorCode.INTERNAL)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        detail = f"{request.method} {request.url.path} is not part of this API; see /docs"
    sent = error.headers if isinstance(error, HTTPException) else None
    return problem_response(_problem(status, code, detail, request.state.request_id), sent)


def _problem(status: int, code: ErrorCode, detail: str, request_id: str) -> Problem:
    return Problem(
        type=f"urn:vl2v:problem:{code.value}",
        title=code.value.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        retryable=code in RETRYABLE_CODES,
    )


def _location(location: object) -> str:
    parts = location if isinstance(location, tuple | list) else (location,)
    # A part may be a field name of the client's making, of any length.
    return ".".join(str(part)[:_MAX_NAME_LENGTH] for part in parts) or "body"
