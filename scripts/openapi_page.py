"""The routes of the vendor as Markdown, from its OpenAPI document; no model and no ledger is opened for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI

from vl2v_vendor.web.app import ROUTERS
from vl2v_vendor.web.declarations import add_openapi

_METHODS = ("get", "post", "put", "patch", "delete")


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the vendor's routes."""
    app = FastAPI(title="VL2V vendor")
    for router in ROUTERS:
        app.include_router(router)
    add_openapi(app)
    return app.openapi()


def http() -> str:
    """Describe every route: what it does, its parameters, its body, and its answers."""
    api = document()
    routes: dict[str, list[str]] = defaultdict(list)
    for path, operations in api["paths"].items():
        for method in _METHODS:
            if method in operations:
                operation = operations[method]
                tag = operation.get("tags", ["vendor"])[0]
                routes[tag].append("\n\n".join(_route(f"{method.upper()} {path}", operation)))
    parts = [f"## {tag[:1].upper()}{tag[1:]}\n\n" + "\n\n".join(texts) for tag, texts in routes.items()]
    messages = [_message(name, schema) for name, schema in sorted(api["components"]["schemas"].items())]
    return "\n\n".join([*parts, "## Messages", *messages])


def _route(name: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{name}`"
    yield f"{operation.get('summary', '')}. {operation.get('description', '')}".strip()
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            f"| `{one['name']}` | {one['in']} | {'required' if one.get('required') else ''} "
            f"| {_type(one.get('schema', {}))} | {_cell(one.get('description', ''))} |"
            for one in parameters
        ]
        yield "\n".join(["| parameter | in | | type | |", "|---|---|---|---|---|", *rows])
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        yield "Body: " + "; ".join(f"`{kind}` {_type(one.get('schema', {}))}" for kind, one in body.items()) + "."
    rows = [
        f"| {status} | {_cell(answer.get('description', ''))} | "
        + "; ".join(f"`{kind}` {_type(one.get('schema', {}))}" for kind, one in answer.get("content", {}).items())
        + " |"
        for status, answer in sorted(operation["responses"].items())
    ]
    yield "\n".join(["| status | | body |", "|---|---|---|", *rows])


def _message(name: str, schema: Mapping[str, Any]) -> str:
    lines = [f"### {name}"]
    if schema.get("description"):
        lines.append(_paragraph(schema["description"]))
    fields = schema.get("properties", {})
    if fields:
        required = set(schema.get("required", ()))
        rows = [
            f"| `{field}` | {'required' if field in required else ''} | {_type(one)} | {_cell(_about(one))} |"
            for field, one in fields.items()
        ]
        lines.append("\n".join(["| field | | type | |", "|---|---|---|---|", *rows]))
    elif "enum" in schema:
        lines.append(f"One of {_type(schema)}.")
    return "\n\n".join(lines)


def _about(schema: Mapping[str, Any]) -> str:
    parts = [schema.get("description", "")]
    limits = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("minLength", "length at least"),
            ("maxLength", "length at most"),
            ("maxItems", "items at most"),
        )
        if key in schema
    ]
    if limits:
        parts.append(f"({', '.join(limits)})")
    if schema.get("default") is not None:
        parts.append(f"Default `{schema['default']}`.")
    return " ".join(part for part in parts if part)


def _type(schema: Mapping[str, Any]) -> str:
    """Name a schema; a message of ours is a link to its table."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[key])))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "anything")
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _cell(text: str) -> str:
    return _paragraph(text).replace("|", "\\|")


def _paragraph(text: str) -> str:
    return " ".join(text.split())
