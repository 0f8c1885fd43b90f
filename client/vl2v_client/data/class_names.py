"""Names of classes: those that a student's card can hold and a terminal shows as they are."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from vl2v_client.core.errors import DataError
from vl2v_contract.texts import printable

MAX_CLASSES = 50_000
"""ImageNet-21k has 21,841."""


def _shown_as_they_are(names: tuple[str, ...]) -> tuple[str, ...]:
    if any(printable(name) != name for name in names):
        raise ValueError("a class name has control characters")
    if len(set(names)) < len(names):
        raise ValueError("two classes have the same name")
    return names


ClassNames = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=255)], ...],
    Field(min_length=1, max_length=MAX_CLASSES, fail_fast=True),
    AfterValidator(_shown_as_they_are),
]


def check_class_names(names: Sequence[str]) -> None:
    """Refuse classes that no card can name, before anything is bought for them.

    Raises:
        DataError: There are too many, or a name is too long or has control characters.
    """
    try:
        TypeAdapter(ClassNames).validate_python(tuple(names))
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"the class folders cannot be used ({reason[:1].lower()}{reason[1:]}): rename them") from error
