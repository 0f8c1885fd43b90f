"""What a server answers before its model is loaded: it is alive and not ready, and it sells nothing yet."""

from dataclasses import dataclass, field
from typing import Final

from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vl2v_contract.wire import headers
from vl2v_vendor.domain.encoder import Limits
from vl2v_vendor.domain.errors import ModelUnavailable
from vl2v_vendor.web.body_limit import BodyLimit
from vl2v_vendor.web.middleware import PROBES
from vl2v_vendor.web.problems import refusal
from vl2v_vendor.web.request_context import RequestContext

_RETRY_SECONDS: Final = 2


@dataclass(eq=False)
class StartingApp:
    """Stands in for the application until that can be made, and hands every request on to it from then on.

    Attributes:
        loaded: The application; None while the model is being loaded.
    """

    loaded: ASGIApp | None = None
    _stand_in: ASGIApp = field(init=False)

    def __post_init__(self) -> None:
        self._stand_in = RequestContext(BodyLimit(_answer_without_model, Limits.max_request_bytes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        await (self.loaded or self._stand_in)(scope, receive, send)


async def _answer_without_model(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer unread: no key is looked up, nothing is billed."""
    path, state = scope["path"], scope["state"]
    if path in PROBES:
        state["endpoint"] = path
    answer: Response
    if path == "/healthz":
        answer = JSONResponse({"status": "ok"})
    elif path == "/readyz":
        told = {"status": "not ready", "checks": {"model": "the model is being loaded"}}
        answer = JSONResponse(told, 503, {headers.RETRY_AFTER: str(_RETRY_SECONDS)})
    else:
        error = ModelUnavailable("the model is being loaded; nothing was billed", _RETRY_SECONDS)
        answer = refusal(error, state["request_id"])
        answer.headers[headers.MODEL_LOADING] = "true"
    await answer(scope, receive, send)
