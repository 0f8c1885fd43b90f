"""Templates, and the answers that are made of them; a refusal is a page too."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vl2v_contract.texts import format_micro
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.observe.request_trace import note
from vl2v_vendor.web.pages.sessions import SignedOut, end_session
from vl2v_vendor.web.problems import make_problem, refusal_headers

LOGIN_PATH: Final = "/login"

_FOLDER: Final = Path(__file__).parent
_INTERNAL: Final = 500
_MICRO: Final = 1_000_000


def show(name: str, status: int = 200, **facts: Any) -> Response:
    """Answer with a template; whatever is put into it is escaped."""
    return HTMLResponse(_templates().get_template(name).render(facts), status)


def go_to(path: str) -> Response:
    """Send the browser to another page of this host, which the answer does not name."""
    return RedirectResponse(path, 303)


def static_file(name: str, media_type: str) -> Response:
    """Answer with a file that is not a template."""
    return Response(_read(name), media_type=media_type)


class PageRoute(APIRoute):
    """A route that answers people: without a session by the login, and a refusal by a page with the same status."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the usual handler."""
        handle = super().get_route_handler()

        async def handle_for_people(request: Request) -> Response:
            try:
                return await handle(request)
            except SignedOut as error:
                answer = go_to(f"{LOGIN_PATH}?ended" if error.has_ended else LOGIN_PATH)
                if error.has_ended:
                    end_session(request, answer)
                return answer
            except (VendorError, RequestValidationError) as error:
                return show_refusal(request, error)

        return handle_for_people


def show_refusal(request: Request, error: Exception, name: str = "refusal.html", **facts: Any) -> Response:
    """Answer a refusal by a page.

    Raises:
        VendorError: It is our own fault, and its text is not for the caller.
    """
    problem = make_problem(error, request.state.request_id)
    if problem.status == _INTERNAL:
        raise error
    note(problem=problem.code.value)
    session = getattr(request.state, "session", None)
    answer = show(name, problem.status, **{"session": session, "problem": problem, **facts})
    answer.headers.update(refusal_headers(problem, error))
    return answer


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / "static" / name).read_bytes()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(money=format_micro, count=_count, moment=_moment, sentence=_sentence, share=_share)
    return environment


def _count(number: int) -> str:
    return f"{number:,}"


def _moment(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds // _MICRO, tz=UTC):%Y-%m-%d %H:%M:%S}"


def _sentence(text: str) -> str:
    """Return a refusal's words as a sentence."""
    return f"{text[:1].upper()}{text[1:]}."


def _share(part: int, whole: int, length: int = 100) -> str:
    """Return how long a bar of `length` is for a part, which may be negative, of a whole."""
    return f"{length * max(0, min(1, part / whole)) if whole > 0 else 0:.1f}"
