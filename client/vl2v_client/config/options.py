"""How an option is declared: once, with its default, range, unit and help."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Options(BaseModel):
    """A group of options. Immutable; an unknown name, a wrong type or a value out of range is refused.

    `model_fields_set` holds the options that somebody named; all others have their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with other values.

        Raises:
            pydantic.ValidationError: A name is unknown or a value is out of range.
        """
        return type(self).model_validate({**self.named(), **changes})

    def result_options(self) -> dict[str, Any]:
        """Return the values that decide what a run makes, as JSON values by option."""
        kept = {name for name, info in type(self).model_fields.items() if declared(info, "result")}
        return self.model_dump(mode="json", include=kept)

    def named(self) -> dict[str, Any]:
        """Return the values that somebody named, by option."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def option(default: Any, text: str, *, unit: str = "", common: bool = False, result: bool = True, **limits: Any) -> Any:
    """Declare an option.

    Args:
        default: Value if nobody names another. `None` leaves it to the preset or to the data.
        text: One sentence for the help and the reference.
        unit: Unit of the value, added to the help.
        common: Whether the help lists it among the options that people use first.
        result: Whether it decides what a run makes; a run folder may be continued with other values of the rest.
        limits: Range, as `pydantic.Field` takes it: `ge`, `gt`, `le`, `lt`.
    """
    description = f"{text}, in {unit}." if unit else f"{text}."
    return Field(default, description=description, json_schema_extra={"common": common, "result": result}, **limits)


def declared(info: FieldInfo, what: Literal["common", "result"]) -> bool:
    """Tell what `option` was given as `common` or `result`."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and bool(extra[what])
