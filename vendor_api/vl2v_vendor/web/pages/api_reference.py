"""The OpenAPI document as a page shows it: operations by tag, and the fields of every message."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

_REFERENCE: Final = "#/components/schemas/"
_BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "pattern": "like {}",
    "default": "{} when absent",
}

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a type's name; `schema` if it names a message that the page describes."""

    text: str
    schema: str | None = None


Kind = tuple[Part, ...]
"""A type, as the page writes it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message, or one parameter of an operation, which lies in its `place`."""

    name: str
    kind: Kind
    is_required: bool
    text: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """One form of a request's or an answer's body; `status` of an answer, or `refused`."""

    media_type: str
    kind: Kind
    text: str
    status: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be asked at one path by one method."""

    method: str
    path: str
    anchor: str
    summary: str
    text: str
    needs_key: bool
    parameters: tuple[Field, ...]
    bodies: tuple[Body, ...]
    answers: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """A message: its fields, or the values that it may have."""

    name: str
    text: str
    fields: tuple[Field, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """All that the page shows, in the document's order."""

    title: str
    version: str
    groups: Mapping[str, tuple[Operation, ...]]
    schemas: tuple[Schema, ...]


def describe(document: Document) -> Reference:
    """Read an OpenAPI document."""
    groups: dict[str, tuple[Operation, ...]] = {}
    for path, methods in document["paths"].items():
        for method, facts in methods.items():
            tag = facts.get("tags", ["other"])[0]
            groups[tag] = (*groups.get(tag, ()), _operation(path, method, facts))
    schemas = document.get("components", {}).get("schemas", {})
    return Reference(
        document["info"]["title"],
        document["info"]["version"],
        groups,
        tuple(_schema(name, schemas[name]) for name in sorted(schemas)),
    )


def _operation(path: str, method: str, facts: Document) -> Operation:
    answers = [
        Body(media_type, _kind(content.get("schema", {})), answer["description"], status)
        for status, answer in facts.get("responses", {}).items()
        for media_type, content in (answer.get("content") or {"": {}}).items()
    ]
    bodies = [
        Body(media_type, _kind(content["schema"]), content["schema"].get("description", ""))
        for media_type, content in facts.get("requestBody", {}).get("content", {}).items()
    ]
    parameters = [
        Field(one["name"], _kind(one["schema"]), one.get("required", False), _text(one), one["in"])
        for one in facts.get("parameters", [])
    ]
    return Operation(
        method=method.upper(),
        path=path,
        anchor=facts["operationId"],
        summary=facts.get("summary", ""),
        text=facts.get("description", ""),
        needs_key="security" in facts,
        parameters=tuple(parameters),
        bodies=tuple(bodies),
        answers=tuple(_join_refusals(sorted(answers, key=lambda one: one.status))),
    )


def _join_refusals(answers: Sequence[Body]) -> Iterator[Body]:
    """Yield answers by status, those of one message that refuse as one."""
    for (is_refusal, media_type, kind), group in groupby(
        answers, lambda one: (one.status >= "400", one.media_type, one.kind)
    ):
        if is_refusal:
            text = ", ".join(f"{one.status} {one.text}" for one in group)
            yield Body(media_type, kind, text, "refused")
        else:
            yield from group


def _schema(name: str, schema: Document) -> Schema:
    required = schema.get("required", [])
    fields = (
        Field(field, _kind(facts), field in required, _text(facts))
        for field, facts in schema.get("properties", {}).items()
    )
    return Schema(name, schema.get("description", ""), tuple(fields), tuple(map(str, schema.get("enum", []))))


def _text(facts: Document) -> str:
    """Return what a field is for, and its bounds, which lie beside it or in one of the types that it may have."""
    schema = facts.get("schema", facts)
    choices = [schema, *schema.get("anyOf", [])]
    bounds = [
        form.format(choice[name])
        for choice in choices
        for name, form in _BOUNDS.items()
        if choice.get(name) not in (None, "", [])
    ]
    text = facts.get("description", "").strip()
    return f"{text} ({', '.join(bounds)})".strip() if bounds else text


def _kind(schema: Document) -> Kind:
    return tuple(_parts(schema))


def _parts(schema: Document) -> Iterator[Part]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        yield Part(name, name)
    elif "anyOf" in schema or "oneOf" in schema:
        for index, choice in enumerate(schema.get("anyOf") or schema["oneOf"]):
            yield from [Part(" or ")] if index else []
            yield from _parts(choice)
    elif "const" in schema or "enum" in schema:
        yield Part(" or ".join(repr(value) for value in schema.get("enum", [schema.get("const")])))
    elif "items" in schema or "prefixItems" in schema:
        yield Part("list of ")
        yield from _parts(schema.get("items") or schema["prefixItems"][0])
    elif "properties" in schema:
        yield Part(f"form of {', '.join(schema['properties'])}")
    else:
        yield Part("bytes" if schema.get("format") == "binary" else str(schema.get("type", "anything")))
