"""What routes ask for: the services, and a caller with the right scope.

All are coroutines, however little they do: FastAPI sends plain functions to a thread, which costs each half a
millisecond.
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from vl2v_vendor.domain.accounts import ApiKey, Scope
from vl2v_vendor.service.services import Services

_bearer = HTTPBearer(auto_error=False, description="An API key of the vendor: `Bearer vl2v_...`.")

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


async def services_of(request: Request) -> Services:
    """Return the services that the application was made with."""
    return cast("Services", request.app.state.services)


class Requires:
    """An access policy: the caller's API key has `scope`. Checked before the body is read."""

    def __init__(self, scope: Scope) -> None:
        self.scope: Scope = scope

    async def __call__(self, request: Request, credentials: Credentials) -> ApiKey:
        """Authenticate the caller."""
        secret = credentials.credentials if credentials is not None else None
        services = await services_of(request)
        key = await services.authenticator.authenticate(secret, self.scope)
        request.state.api_key_id = key.id
        return key


async def public() -> None:
    """Let everybody in: the access policy of public routes."""


ServicesOf = Annotated[Services, Depends(services_of)]
PUBLIC = Depends(public)
EmbedCaller = Annotated[ApiKey, Depends(Requires("embed"))]
BillingCaller = Annotated[ApiKey, Depends(Requires("billing"))]
ADMIN = Depends(Requires("admin"))
AdminCaller = Annotated[ApiKey, ADMIN]
