"""`/docs`: the API's description as a page of our own, made from the OpenAPI document; and that document.

Both are made once, since anybody may ask for them.
"""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vl2v_vendor.web.declarations import PUBLIC
from vl2v_vendor.web.pages.api_reference import describe
from vl2v_vendor.web.pages.rendering import PageRoute, show

_SCOPES = {"embeddings": "embed", "openai": "embed", "billing": "billing", "admin": "admin"}
"""Tag: the scope that its operations need, those that need a key."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/docs", dependencies=[PUBLIC])
async def get_reference(request: Request) -> Response:
    """Describe every route, message and status."""
    state = request.app.state
    if getattr(state, "reference_page", None) is None:
        state.reference_page = show("reference.html", reference=describe(request.app.openapi()), scopes=_SCOPES).body
    return HTMLResponse(state.reference_page)


@router.get("/openapi.json", dependencies=[PUBLIC])
async def get_document(request: Request) -> Response:
    """Describe the same for programs."""
    state = request.app.state
    if getattr(state, "openapi_document", None) is None:
        state.openapi_document = JSONResponse(request.app.openapi()).body
    return Response(state.openapi_document, media_type="application/json")
