"""Middleware that refuses a sale at the door while its lane is full."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.web.problems import make_problem, problem_response, refusal_headers


class OverloadGate:
    """Refuses before anything is done for a request: no routing, no key looked up, no body read.

    A flood must cost no more than its refusals. So who is refused here is not told whether the key is good.

    Args:
        app: Application behind the gate.
        lanes: Lanes of the model.
        modality_of: Modality that each path sells.
    """

    def __init__(self, app: ASGIApp, lanes: EncodingLanes, modality_of: Mapping[str, Modality]) -> None:
        self._app = app
        self._lanes = lanes
        self._modality_of = modality_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._modality_of:
            try:
                self._lanes.check_room(self._modality_of[scope["path"]])
            except Overloaded as error:
                scope["state"]["endpoint"] = scope["path"]
                problem = make_problem(error, scope["state"]["request_id"])
                await problem_response(problem, refusal_headers(problem, error))(scope, receive, send)
                return
        await self._app(scope, receive, send)
