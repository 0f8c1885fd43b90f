"""HTTP header names and media types of the wire."""

from __future__ import annotations

from typing import Final

AUTHORIZATION: Final = "Authorization"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
REQUEST_ID: Final = "X-Request-Id"
RETRY_AFTER: Final = "Retry-After"
SHOULD_RETRY: Final = "X-Should-Retry"
IDEMPOTENT_REPLAYED: Final = "Idempotent-Replayed"
BUDGET_LIMIT: Final = "X-Budget-Limit"
BUDGET_REMAINING: Final = "X-Budget-Remaining"

API_KEY_PREFIX: Final = "vl2v_"

PROBLEM_JSON: Final = "application/problem+json"
RGB8_TENSOR: Final = "application/vnd.vl2v.rgb8"
OCTET_STREAM: Final = "application/octet-stream"
