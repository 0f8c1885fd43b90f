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
RECEIPT_SEQ: Final = "X-VL2V-Receipt-Seq"
BILLED_UNITS: Final = "X-VL2V-Billed-Units"

API_KEY_PREFIX: Final = "vl2v_"

JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"
PROBLEM_JSON: Final = "application/problem+json"
RGB8_TENSOR: Final = "application/vnd.vl2v.rgb8"
OCTET_STREAM: Final = "application/octet-stream"
