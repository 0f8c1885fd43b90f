"""The account's API keys for people: what each may do and has left, a form for another, a button that ends one."""

import hashlib
import secrets
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response

from vl2v_vendor.domain.accounts import Scope
from vl2v_vendor.domain.errors import Forbidden, InvalidRequest
from vl2v_vendor.service.administration import AdminContext
from vl2v_vendor.service.customer_keys import CustomerKeys, KeyTerms, grantable
from vl2v_vendor.service.services import Services
from vl2v_vendor.web.declarations import ServicesOf
from vl2v_vendor.web.pages.forms import Form
from vl2v_vendor.web.pages.rendering import PageRoute, go_to, show, show_refusal
from vl2v_vendor.web.pages.sessions import Session, SessionOf, SignedForm

_PATH = "/keys"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(_PATH)
async def get_keys(session: SessionOf, services: ServicesOf) -> Response:
    """List the account's keys."""
    return show("keys.html", problem=None, **await _facts(session, services, Form({})))


@router.post(_PATH)
async def make_key(request: Request, session: SessionOf, form: SignedForm, services: ServicesOf) -> Response:
    """Make a key, whose secret is on this page and on no other; sent again, the form makes no second one."""
    try:
        key, secret = await CustomerKeys(services.administration).make(_act(session, form), _terms(form))
    except (InvalidRequest, Forbidden) as error:
        return show_refusal(request, error, "keys.html", **await _facts(session, services, form))
    return show("new_key.html", 201, session=session, key=key, secret=secret)


@router.post(f"{_PATH}/{{key_id}}/revocation")
async def revoke_key(key_id: str, session: SessionOf, form: SignedForm, services: ServicesOf) -> Response:
    """End a key at once; the session ends with it if it is its own."""
    await CustomerKeys(services.administration).revoke(_act(session, form), key_id)
    return go_to(_PATH)


def _act(session: Session, form: Form) -> AdminContext:
    """Name the act by the whole form: sent again it is the same act, and filled in anew another."""
    name = hashlib.sha256(repr(sorted(form.fields.items())).encode()).hexdigest()
    return AdminContext(session.key, name, lambda: None)


def _terms(form: Form) -> KeyTerms:
    return KeyTerms(
        name=form.text("name"),
        scopes=frozenset(cast("list[Scope]", form.texts("scope"))),
        limit_units=form.number("limit_units", "queries that it may spend"),
        expires_days=form.number("expires_days", "days until it expires"),
    )


async def _facts(session: Session, services: Services, form: Form) -> dict[str, Any]:
    listed = await CustomerKeys(services.administration).keys(session.key)
    return {
        "session": session,
        "keys": sorted(listed, key=lambda one: (one.key.revoked_at is not None, -one.key.created_at)),
        "grantable": sorted(grantable(session.key, listed), reverse=True),
        "form": form,
        "act": secrets.token_urlsafe(16),
        "now": services.authenticator.clock.now(),
    }
