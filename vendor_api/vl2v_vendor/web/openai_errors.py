"""Refusals in OpenAI's shape, for the one path that speaks OpenAI's language."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from vl2v_contract.wire.errors import RETRYABLE_CODES, ErrorCode, Problem
from vl2v_contract.wire.openai import OpenAIFault, OpenAIProblem
from vl2v_vendor.domain.errors import InvalidRequest, ItemsFailed, UnknownModel
from vl2v_vendor.service.request_facts import note
from vl2v_vendor.web.errors import describe_faults, make_problem, refusal_headers
from vl2v_vendor.web.openai_inputs import InvalidField

_BAD_REQUEST: Final = 400
_UNPROCESSABLE: Final = 422
_INTERNAL: Final = 500

_TYPES: Final = {
    ErrorCode.BUDGET_EXHAUSTED: "insufficient_quota",
    ErrorCode.RATE_LIMITED: "rate_limit_error",
    ErrorCode.FORBIDDEN: "permission_error",
}
_CODES: Final = {
    ErrorCode.UNAUTHENTICATED: "invalid_api_key",
    ErrorCode.UNKNOWN_MODEL: "model_not_found",
    ErrorCode.RATE_LIMITED: "rate_limit_exceeded",
}
"""OpenAI's own names, where it has one; else the code is ours."""

_log = logging.getLogger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class OpenAIRoute(APIRoute):
    """A route whose refusals, those of its dependencies included, have OpenAI's shape."""

    def get_route_handler(self) -> Handler:
        """The handler behind a net."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientDisconnect:
                raise
            except Exception as error:
                return _refuse(error, request.state.request_id)

        return answer


def _refuse(error: Exception, request_id: str) -> Response:
    problem = _problem_of(error, request_id)
    if problem.code is ErrorCode.INTERNAL:
        _log.error("request %s failed", request_id, exc_info=error)
    note(problem=problem.code.value)
    fault = OpenAIFault(
        message=problem.detail,
        type=_TYPES.get(problem.code, "server_error" if problem.status >= _INTERNAL else "invalid_request_error"),
        param=_param_of(error),
        code=_CODES.get(problem.code, problem.code.value),
    )
    return Response(
        OpenAIProblem(error=fault).model_dump_json(),
        # OpenAI's clients know a malformed request as a 400.
        status_code=_BAD_REQUEST if problem.status == _UNPROCESSABLE else problem.status,
        headers=refusal_headers(problem, error),
        media_type="application/json",
    )


def _problem_of(error: Exception, request_id: str) -> Problem:
    if isinstance(error, RequestValidationError):
        error = InvalidRequest(describe_faults(list(error.errors())))
    if isinstance(error, ItemsFailed):
        code = ErrorCode(next(iter(error.failures.values())).code)
        problem = make_problem(InvalidRequest(str(error)), request_id)
        return problem.model_copy(update={"code": code, "retryable": code in RETRYABLE_CODES})
    return make_problem(error, request_id)


def _param_of(error: Exception) -> str | None:
    if isinstance(error, InvalidField):
        return error.field
    if isinstance(error, ItemsFailed):
        return f"input[{next(iter(error.failures))}]"
    return "model" if isinstance(error, UnknownModel) else None
