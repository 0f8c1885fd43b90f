"""From an answer that is not 2xx, or no answer at all, to an error that says what to do."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from vl2v_client.core.errors import BudgetExhausted, NotAuthorized, VendorChanged, VendorError, VendorUnavailable
from vl2v_contract.wire.errors import ErrorCode, Problem

_KEY_SOURCE = "give the API key, or set VL2V_API_KEY; the vendor issues keys"


class AllItemsFailed(VendorError):
    """Every item of a request failed on its own; nothing was billed. `items` says why, one by one."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail, code=str(problem.code), request_id=problem.request_id)
        self.items = problem.items


def read_problem(response: httpx.Response) -> Problem | None:
    """Return the problem+json body, or None if this is something else."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


def problem_error(response: httpx.Response, url: str) -> VendorError:
    """Return the error that an answer outside 2xx stands for."""
    problem = read_problem(response)
    if problem is None:
        return _foreign_error(response, url)
    code, request_id = str(problem.code), problem.request_id
    if response.status_code == httpx.codes.PAYMENT_REQUIRED:
        left = "" if problem.remaining_units is None else f" ({problem.remaining_units} queries left)"
        message = f"the vendor's {problem.budget or 'account'} budget is exhausted{left}: {problem.detail}. "
        message += "Everything bought so far is kept; after a top-up run the same command again"
        return BudgetExhausted(message, code=code, request_id=request_id)
    if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        message = f"the vendor at {url} refused the API key: {problem.detail}; {_KEY_SOURCE}"
        return NotAuthorized(message, code=code, request_id=request_id)
    if problem.code is ErrorCode.PRICE_CHANGED:
        message = f"the vendor's price has changed and nothing was bought: {problem.detail}; plan again to see it"
        return VendorChanged(message, code=code, request_id=request_id)
    if problem.code is ErrorCode.ALL_ITEMS_FAILED:
        return AllItemsFailed(problem)
    if problem.retryable:
        message = f"the vendor cannot serve this now: {problem.detail}; run the same command again to go on"
        return VendorUnavailable(message, code=code, request_id=request_id)
    items = "".join(f"; item {item.index}: {item.detail}" for item in problem.items[:3])
    return VendorError(f"the vendor refused the request: {problem.detail}{items}", code=code, request_id=request_id)


def no_answer_error(error: httpx.RequestError, url: str) -> VendorError:
    """Return the error for a request that never got a whole answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return VendorUnavailable(f"no vendor answers at {url} ({error}): is it running at purchase.vendor_url?")
    if isinstance(error, httpx.TimeoutException):
        return VendorUnavailable(f"the vendor at {url} did not answer in time; run the same command again to go on")
    return VendorUnavailable(f"the connection to the vendor at {url} broke ({error}); run the same command again")


def not_a_vendor(url: str, what: str) -> VendorError:
    """Return the error for a server that does not speak this wire."""
    return VendorError(f"{url} is not a VL2V vendor of this version ({what}); check purchase.vendor_url")


def _foreign_error(response: httpx.Response, url: str) -> VendorError:
    status, path = response.status_code, response.request.url.path
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return NotAuthorized(f"{url} refused the request with {status}; {_KEY_SOURCE}")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
        return VendorUnavailable(f"{url} answered {path} with {status}; run the same command again to go on")
    return not_a_vendor(url, f"{path} answered {status} {response.headers.get('content-type', 'without a type')}")
