"""Who is logged in to the pages: a sealed cookie names an API key, which is looked up again for each page.

So a session ends with its key, on every replica at once, and nothing is stored. A form carries a token that only the
browser with that cookie was given.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass
from typing import Annotated, Final, cast

from cryptography.fernet import Fernet, InvalidToken
from fastapi import Depends, Request
from fastapi.responses import Response

from vl2v_vendor.domain.accounts import ApiKey, secret_sha256
from vl2v_vendor.domain.errors import Forbidden, KeyExpired, KeyRevoked, UnknownKey
from vl2v_vendor.domain.ports import Clock
from vl2v_vendor.web.declarations import ServicesOf
from vl2v_vendor.web.pages.forms import Form, read_form

SESSION_SECONDS: Final = 3600
"""After this one has to log in again."""

_SESSION_COOKIE: Final = "vl2v-session"
_VISIT_COOKIE: Final = "vl2v-visit"
"""Of a browser that is not logged in: a random number, to which the form of the login is bound."""
_HOST_ONLY: Final = "__Host-"
"""Browsers take a cookie of such a name over TLS alone, and from no neighbouring host."""

_MICRO: Final = 1_000_000


class SignedOut(Exception):
    """The page needs a session, and there is none; `has_ended` if there was one."""

    def __init__(self, *, has_ended: bool) -> None:
        super().__init__("log in first")
        self.has_ended = has_ended


class StaleForm(Forbidden):
    """A form came without the token that this browser was given with it."""

    def __init__(self) -> None:
        super().__init__("this form is out of date, or another site sent it; nothing was done. Load the page again")


@dataclass(frozen=True, slots=True)
class Session:
    """A session: the API key as it is now, and the token of the forms that it is shown."""

    key: ApiKey
    form_token: str


class Sessions:
    """Seals and opens the cookies.

    Args:
        secret: Secret that all replicas share.
        clock: The time.
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(hmac.digest(secret, b"session", "sha256")))
        self._form_secret = hmac.digest(secret, b"form", "sha256")
        self._clock = clock

    def seal(self, credential_sha256: str) -> str:
        """Return the cookie of a new session of the API key whose secret has this SHA-256 (hex)."""
        token = self._fernet.encrypt_at_time(credential_sha256.encode(), self._now())
        return token.decode("ascii").rstrip("=")

    def open(self, cookie: str) -> str | None:
        """Return the SHA-256 that was sealed in a cookie; None if it was not, or longer ago than a session lasts."""
        token = f"{cookie}{'=' * (-len(cookie) % 4)}"
        try:
            return self._fernet.decrypt_at_time(token.encode(), SESSION_SECONDS, self._now()).decode("ascii")
        except InvalidToken:
            return None

    def form_token(self, cookie: str) -> str:
        """Return the token of forms for the browser with this cookie."""
        return hmac.new(self._form_secret, cookie.encode(), "sha256").hexdigest()

    def check_form(self, form: Form, cookie: str | None) -> None:
        """Check that a form was given to the browser with this cookie.

        Raises:
            StaleForm: It was not.
        """
        sent = form.text("form_token").encode()
        if cookie is None or not hmac.compare_digest(sent, self.form_token(cookie).encode()):
            raise StaleForm

    def _now(self) -> int:
        return self._clock.now() // _MICRO


def sessions_of(request: Request) -> Sessions:
    """Return the sessions that the application was made with."""
    return cast("Sessions", request.app.state.sessions)


async def require_session(request: Request, services: ServicesOf) -> Session:
    """Return the session of a browser whose API key may read the bill: the access policy of the pages.

    Raises:
        SignedOut: There is none; or its key was revoked, has expired or lost the scope.
    """
    cookie = _read(request, _SESSION_COOKIE)
    credential = None if cookie is None else sessions_of(request).open(cookie)
    if cookie is None or credential is None:
        raise SignedOut(has_ended=cookie is not None)
    try:
        key = await services.authenticator.recognise(credential, "billing")
    except (UnknownKey, KeyRevoked, KeyExpired, Forbidden):
        raise SignedOut(has_ended=True) from None
    request.state.api_key_id, request.state.account_id = key.id, key.account_id
    request.state.session = Session(key, sessions_of(request).form_token(cookie))
    return cast("Session", request.state.session)


SessionOf = Annotated[Session, Depends(require_session)]


async def signed_form(request: Request, _session: SessionOf) -> Form:
    """Read a form of somebody who is logged in.

    Raises:
        StaleForm: It was not given to this browser in this session.
    """
    form = await read_form(request)
    sessions_of(request).check_form(form, _read(request, _SESSION_COOKIE))
    return form


SignedForm = Annotated[Form, Depends(signed_form)]


async def login_form(request: Request) -> Form:
    """Read the form of the login.

    Raises:
        StaleForm: It was not given to this browser.
    """
    form = await read_form(request)
    sessions_of(request).check_form(form, _read(request, _VISIT_COOKIE))
    return form


LoginForm = Annotated[Form, Depends(login_form)]


def visit_of(request: Request) -> str:
    """Return the cookie of a browser that is not logged in, a new one if it has none."""
    return _read(request, _VISIT_COOKIE) or secrets.token_urlsafe(24)


def set_visit(request: Request, response: Response, visit: str) -> None:
    """Give a browser the cookie of `visit_of`."""
    _write(request, response, _VISIT_COOKIE, visit)


def start_session(request: Request, response: Response, secret: str) -> None:
    """Log a browser in with the secret of an API key."""
    _write(request, response, _SESSION_COOKIE, sessions_of(request).seal(secret_sha256(secret)))


def end_session(request: Request, response: Response) -> None:
    """Log a browser out."""
    _write(request, response, _SESSION_COOKIE, "", max_age=0)


def _read(request: Request, name: str) -> str | None:
    return request.cookies.get(_cookie_name(request, name)) or None


def _write(request: Request, response: Response, name: str, value: str, *, max_age: int = SESSION_SECONDS) -> None:
    response.set_cookie(
        _cookie_name(request, name),
        value,
        max_age=max_age,
        path="/",
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )


def _cookie_name(request: Request, name: str) -> str:
    return f"{_HOST_ONLY}{name}" if _is_https(request) else name


def _is_https(request: Request) -> bool:
    return request.url.scheme == "https"
