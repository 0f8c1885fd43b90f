"""One table from refusals to answers: RFC 9457 problems with a status, a stable code, and whether a retry can help."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from vl2v_contract.wire import headers
from vl2v_contract.wire.errors import RETRYABLE_CODES, ErrorCode, ItemProblem, Problem
from vl2v_contract.wire.openai_format import OpenAIFault, OpenAIProblem
from vl2v_vendor.domain import errors
from vl2v_vendor.observe.request_trace import note


class AllItemsFailed(errors.VendorError):
    """No item of a well-formed request could be sold; each one's own error is listed."""

    def __init__(self, failures: Mapping[int, errors.ItemFailure]) -> None:
        super().__init__(f"all {len(failures)} items failed and nothing was billed; see `items`")
        self.failures = failures


_REFUSALS: Final[dict[type[errors.VendorError], tuple[int, ErrorCode]]] = {
    AllItemsFailed: (422, ErrorCode.ALL_ITEMS_FAILED),
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

_INTERNAL: Final = 500
_INTERNAL_DETAIL: Final = "an internal error; send it again with the same item keys: what was billed comes free"
_TWICE: Final = "/v1/v1/"
_OFF_BASE: Final = (_TWICE, "/embeddings", "/models")
"""Beginnings of paths that a wrong base URL makes of the paths of the wire."""
_MAX_REPORTED_FAULTS: Final = 5
_MAX_NAME_LENGTH: Final = 40
_MAX_DETAIL_LENGTH: Final = 500
"""Names and paths of the caller's making are quoted, and may be long."""

SECURITY_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""Headers of every answer, whatever its body is: a page of ours has a stylesheet, and no script."""


def refusal(error: Exception, request_id: str) -> Response:
    """Build the answer to a refusal."""
    problem = make_problem(error, request_id)
    return _respond(problem, refusal_headers(problem, error))


def malformed_refusal(detail: str, request_id: str = "") -> Response:
    """Build the answer to what is not a request, or none of ours."""
    problem = _problem(HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_REQUEST, detail, request_id)
    return _respond(problem, refusal_headers(problem))


def make_problem(error: Exception, request_id: str) -> Problem:
    """Build the problem document of any exception. An unknown exception's own text stays inside."""
    if isinstance(error, RequestValidationError):
        error = errors.InvalidRequest(describe_faults(error.errors()))
    found = (_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS)
    status, code = next(found, (_INTERNAL, ErrorCode.INTERNAL))
    more: dict[str, Any] = {}
    if isinstance(error, errors.BudgetExhausted):
        more = {name: getattr(error, name) for name in ("budget", "limit_units", "remaining_units")}
    elif isinstance(error, errors.OutcomeUnknown):
        more = {"retryable": False}
    elif isinstance(error, errors.ItemsFailed):
        status, code = 422, ErrorCode(next(iter(error.failures.values())).code)
    elif isinstance(error, AllItemsFailed):
        items = [
            ItemProblem(index=index, code=ErrorCode(failure.code), detail=failure.detail)
            for index, failure in error.failures.items()
        ]
        more = {"items": items, "retryable": any(item.code in RETRYABLE_CODES for item in items)}
    return _problem(status, code, str(error) if status != _INTERNAL else _INTERNAL_DETAIL, request_id, **more)


def refusal_headers(problem: Problem, error: Exception | None = None) -> dict[str, str]:
    """Return the headers of a refusal: whether and when to try again, and how to authenticate."""
    sent = {headers.SHOULD_RETRY: "true" if problem.retryable else "false"}
    if isinstance(error, errors.Unavailable) and problem.retryable:
        sent[headers.RETRY_AFTER] = str(error.retry_after_seconds)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = "Bearer"
    return sent


def add_error_handlers(app: FastAPI) -> None:
    """Turn every refusal, FastAPI's own included, into a problem."""
    app.add_exception_handler(errors.VendorError, _handle_refusal)
    app.add_exception_handler(RequestValidationError, _handle_refusal)
    app.add_exception_handler(HTTPException, _handle_http)


def describe_faults(faults: Sequence[Any]) -> str:
    """Join Pydantic's findings to one sentence that repeats no input."""
    named = [f"{_location(fault['loc'])}: {fault['msg']}" for fault in faults[:_MAX_REPORTED_FAULTS]]
    more = len(faults) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


async def _handle_refusal(request: Request, error: Exception) -> Response:
    answer = refusal(error, request.state.request_id)
    if answer.status_code == _INTERNAL:
        raise error  # not meant for a caller: the middleware logs it and answers
    return answer


async def _handle_http(request: Request, error: Exception) -> Response:
    """Answer Starlette's own refusals: no such route, wrong method."""
    refused = cast("HTTPException", error)
    status, detail = refused.status_code, str(refused.detail)
    code = _STATUS_CODES.get(status, ErrorCode.INVALID_REQUEST if status < _INTERNAL else ErrorCode.INTERNAL)
    path, sent = request.url.path, refused.headers or {}
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        detail = f"{request.method} {path} is not part of this API; {_remedy(path)}"
    problem = _problem(status, code, detail, request.state.request_id)
    answer = _respond(problem, {**refusal_headers(problem), **sent})
    if path.startswith(_OFF_BASE):  # perhaps an OpenAI client's, which shows its user the message of `error` alone
        fault = OpenAIFault(message=problem.detail, type="invalid_request_error", param=None, code=problem.code.value)
        both = problem.model_dump(mode="json", exclude_none=True) | OpenAIProblem(error=fault).model_dump()
        answer.body = json.dumps(both).encode()
        answer.headers["content-length"] = str(len(answer.body))
    return answer


def _remedy(path: str) -> str:
    """Return what to do about a path that is none: OpenAI's clients add no `/v1` to their base URL, ours does."""
    if not path.startswith(_OFF_BASE):
        return "see /docs"
    if path.startswith(_TWICE):
        return "the base URL has one /v1 too many at its end: vl2v-client adds its own"
    return "the base URL lacks /v1 at its end, as in http://host:8000/v1"


def _problem(status: int, code: ErrorCode, detail: str, request_id: str, **more: Any) -> Problem:
    return Problem(
        type=f"urn:vl2v:problem:{code.value}",
        title=code.value.replace("_", " ").capitalize(),
        status=status,
        detail=detail if len(detail) <= _MAX_DETAIL_LENGTH else f"{detail[: _MAX_DETAIL_LENGTH - 3]}...",
        code=code,
        request_id=request_id,
        **{"retryable": code in RETRYABLE_CODES, **more},
    )


def _respond(problem: Problem, sent: Mapping[str, str]) -> Response:
    note(problem=problem.code.value)
    return Response(
        problem.model_dump_json(exclude_none=True), problem.status, headers=sent, media_type=headers.PROBLEM_JSON
    )


def _location(location: object) -> str:
    parts = location if isinstance(location, tuple | list) else (location,)
    # A part may be a field name of the client's making, of any length.
    return ".".join(str(part)[:_MAX_NAME_LENGTH] for part in parts) or "body"
