"""RFC 9457 problems with a stable code: what went wrong, to which item, and whether a retry can help."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class ErrorCode(StrEnum):
    """Stable names of everything that can be refused. Clients decide by these, never by a message."""

    # the whole request
    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    UNKNOWN_MODEL = "unknown_model"
    BUDGET_EXHAUSTED = "budget_exhausted"
    PRICE_CHANGED = "price_changed"
    REQUEST_IN_FLIGHT = "request_in_flight"
    REQUEST_TIMEOUT = "request_timeout"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_MANY_ITEMS = "too_many_items"
    ALL_ITEMS_FAILED = "all_items_failed"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    MODEL_UNAVAILABLE = "model_unavailable"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    INTERNAL = "internal"
    # one item (BUDGET_EXHAUSTED too, with `allow_partial`)
    EMPTY_ITEM = "empty_item"
    INVALID_ENCODING = "invalid_encoding"
    UNDECODABLE_IMAGE = "undecodable_image"
    UNSUPPORTED_IMAGE_FORMAT = "unsupported_image_format"
    IMAGE_TOO_LARGE = "image_too_large"
    TEXT_TOO_LONG = "text_too_long"
    INVALID_ITEM_KEY = "invalid_item_key"
    ITEM_KEY_MISMATCH = "item_key_mismatch"
    UNKNOWN_ITEM = "unknown_item"
    RESULT_EXPIRED = "result_expired"
    ENCODING_FAILED = "encoding_failed"


RETRYABLE_CODES = frozenset(
    {
        ErrorCode.REQUEST_IN_FLIGHT,
        ErrorCode.REQUEST_TIMEOUT,
        ErrorCode.RATE_LIMITED,
        ErrorCode.OVERLOADED,
        ErrorCode.MODEL_UNAVAILABLE,
        ErrorCode.LEDGER_UNAVAILABLE,
        ErrorCode.INTERNAL,
        ErrorCode.ENCODING_FAILED,
    }
)
"""Codes after which the same bytes under the same item keys may be sent again."""


class ItemError(BaseModel):
    """Why one item has no vector. Nothing was billed for it."""

    model_config = ConfigDict(frozen=True)

    code: ErrorCode
    detail: str = Field(description="What is wrong with this item, and the remedy.")


class ItemProblem(ItemError):
    """An item's error inside a refused request."""

    index: int = Field(ge=0, description="Position in the request, from 0.")


class Problem(BaseModel):
    """The body of every answer that is not 2xx (`application/problem+json`)."""

    type: str = Field(description="A URI reference that names the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What happened, to what, and the remedy.")
    code: ErrorCode
    request_id: str
    retryable: bool = Field(description="Whether the same request may succeed later; also `X-Should-Retry`.")
    items: list[ItemProblem] = []
    limit_units: int | None = Field(default=None, description="The exhausted budget's limit (402).")
    remaining_units: int | None = Field(default=None, description="What is left of it (402).")
    budget: str | None = Field(default=None, description="Which budget is exhausted (402): `account` or `key`.")
