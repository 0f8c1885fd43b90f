"""Logging in and out of the pages, and their stylesheet and icon."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from vl2v_vendor.domain.errors import Forbidden, KeyExpired, KeyRevoked, UnknownKey
from vl2v_vendor.web.declarations import PUBLIC, ServicesOf
from vl2v_vendor.web.pages.rendering import LOGIN_PATH, PageRoute, go_to, show, show_refusal, static_file
from vl2v_vendor.web.pages.sessions import (
    LoginForm,
    SignedForm,
    end_session,
    sessions_of,
    set_visit,
    start_session,
    visit_of,
)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(LOGIN_PATH, dependencies=[PUBLIC])
async def get_login(request: Request, ended: str | None = None) -> Response:
    """Ask for an API key; `ended` if there was a session before."""
    return _login_page(request, None, has_ended=ended is not None)


@router.post(LOGIN_PATH, dependencies=[PUBLIC])
async def log_in(request: Request, form: LoginForm, services: ServicesOf) -> Response:
    """Log in whoever has an API key that may read the bill."""
    secret = form.text("api_key")
    try:
        key = await services.authenticator.authenticate(secret, "billing")
    except (UnknownKey, KeyRevoked, KeyExpired, Forbidden) as error:
        return _login_page(request, error)
    request.state.api_key_id = key.id
    answer = go_to("/")
    start_session(request, answer, secret)
    return answer


@router.post("/logout")
async def log_out(request: Request, _form: SignedForm) -> Response:
    """End the session."""
    answer = go_to(LOGIN_PATH)
    end_session(request, answer)
    return answer


@router.get("/style.css", dependencies=[PUBLIC])
async def get_style() -> Response:
    """Answer with the one stylesheet."""
    return static_file("style.css", "text/css")


@router.get("/icon.svg", dependencies=[PUBLIC])
async def get_icon() -> Response:
    """Answer with the icon of the pages."""
    return static_file("icon.svg", "image/svg+xml")


def _login_page(request: Request, error: Exception | None, *, has_ended: bool = False) -> Response:
    visit = visit_of(request)
    facts: dict[str, Any] = {"form_token": sessions_of(request).form_token(visit), "has_ended": has_ended}
    if error is None:
        answer = show("login.html", problem=None, **facts)
    else:
        answer = show_refusal(request, error, "login.html", **facts)
    set_visit(request, answer, visit)
    return answer
