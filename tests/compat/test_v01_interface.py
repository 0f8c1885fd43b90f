"""This version offers what version 0.1 offered: the vendor's HTTP interface, and the options of every command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.client.version_01 import FIXTURES, Command, ServedLedger

_PROSE = frozenset({"title", "description", "summary", "example", "examples", "operationId", "tags"})
_NAMED = frozenset({"properties", "paths", "responses", "content", "headers", "securitySchemes"})
"""Objects whose keys are names and not keywords of OpenAPI."""

OPTIONS: dict[str, list[dict[str, Any]]] = json.loads((FIXTURES / "options.json").read_text())
MAY_GO = frozenset({"--rounds", "--style-targets"})
"""Options of which every value but the default is removed in 0.2."""


WIDENED = "/paths/~v1~embeddings/post/requestBody/content/application~json/schema/properties/input"
"""More forms are read than before; the tests of OpenAI's format have those of version 0.1."""

STATEMENT = "/paths/~v1~billing~statement/get/responses/200/content/application~json/schema"
SIGNED = ("/paths/~v1~billing~statement/get/parameters/2", f"{STATEMENT}/anyOf/0")
"""The parameter `signed` is new, and so is its answer."""


def test_the_vendors_interface_is_as_before(served: ServedLedger) -> None:
    documents = (served.ask("acme", "/openapi.json"), json.loads((FIXTURES / "openapi.json").read_text()))
    now, before = (_interface(document) for document in documents)
    assert (now[f"{SIGNED[0]}/name"], now[f"{SIGNED[0]}/required"]) == ("signed", False)
    now = {
        place.replace(f"{STATEMENT}/anyOf/1", STATEMENT): fact
        for place, fact in now.items()
        if not place.startswith(SIGNED)
    }
    forms = [{place for place in facts if place.startswith(WIDENED)} for facts in (now, before)]
    assert len(forms[0]) > len(forms[1]) > 0
    assert {place: now[place] for place in now.keys() - forms[0]} == {
        place: before[place] for place in before.keys() - forms[1]
    }


def test_the_comparison_sees_types_names_statuses_and_constraints() -> None:
    answer = {"200": {"content": {"j": {"schema": {"$ref": "#/components/schemas/A"}}}}}
    schema = {"type": "object", "title": "A", "properties": {"title": {"type": "string", "title": "Title"}}}
    document = {"paths": {"/a": {"get": {"responses": answer}}}, "components": {"schemas": {"A": schema}}}
    content = "/paths/~a/get/responses/200/content/j"
    assert _interface(document) == {
        "/paths/~a": "is there",
        "/paths/~a/get/responses/200": "is there",
        content: "is there",
        f"{content}/schema/type": "object",
        f"{content}/schema/properties/title": "is there",
        f"{content}/schema/properties/title/type": "string",
    }
    for old, new in (('"string"', '"integer"'), ('"title": {"type"', '"name": {"type"'), ('"200"', '"201"')):
        text = json.dumps(document)
        assert old in text
        assert _interface(json.loads(text.replace(old, new))) != _interface(document)


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_is_there(command: str, client: Command, vendor: Command) -> None:
    program, *words = command.split()
    shown = {"vl2v-client": client, "vl2v-vendor": vendor}[program](*words, "--help")
    assert shown.code == 0, shown.err
    found = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", shown.out))
    wanted = {flag for option in OPTIONS[command] for flag in option.get("flags", ())}
    assert wanted - found <= MAY_GO


def test_no_command_is_lost(client: Command, vendor: Command) -> None:
    for program, run in (("vl2v-client", client), ("vl2v-vendor", vendor)):
        assert run("--no-such-option").code == 2
        assert sum(command.startswith(program) for command in OPTIONS) > 10
    assert client("no-such-command").code == 2
    assert client("distill", "--no-such-option").code == 2


def _interface(document: dict[str, Any]) -> dict[str, object]:
    """Every fact of paths and security, by its place: references are followed, so that a schema's name is none."""
    schemas = document.get("components", {})
    facts = {"paths": document["paths"], "securitySchemes": schemas.get("securitySchemes", {})}
    return dict(_facts(facts, document, ""))


def _facts(value: Any, document: dict[str, Any], place: str, *, is_named: bool = False) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and "$ref" in value:
        found: Any = document
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        yield from _facts(found, document, place)
    elif isinstance(value, dict):
        for name, one in value.items():
            if is_named or name not in _PROSE:
                key = name.replace("/", "~")
                if is_named:
                    yield f"{place}/{key}", "is there"
                yield from _facts(one, document, f"{place}/{key}", is_named=not is_named and name in _NAMED)
    elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        parts = [dict(_facts(one, document, "")) for one in value]
        for number, part in enumerate(sorted(parts, key=lambda one: json.dumps(one, sort_keys=True))):
            yield from ((f"{place}/{number}{rest}", fact) for rest, fact in part.items())
    elif isinstance(value, list):
        yield place, sorted(value, key=repr)
    else:
        yield place, value
