"""Canonical JSON is RFC 8785 for what the contract allows, and refuses the rest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl2v_contract.identity import MAX_INTEGER, JSONValue, canonical_json, sha256_hex

KEYS = st.text(st.characters(max_codepoint=127), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


@given(VALUES)
def test_parsing_gives_the_value_back_and_serialising_again_the_same_bytes(value: object) -> None:
    data = canonical_json(value)  # type: ignore[arg-type]
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


@given(st.dictionaries(KEYS, SCALARS, max_size=6))
def test_the_order_of_keys_makes_no_difference(value: dict[str, None]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_strings_of_rfc_8785() -> None:
    """Section 3.2.2.2: the shortest escapes, lower-case hex digits, nothing else escaped."""
    value = "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f"
    assert canonical_json(value) == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'
    assert canonical_json("\b\t\n\f\r\x00\x1f\x7f") == b'"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f"'
    assert canonical_json("\u2028\U0001f600") == '"\u2028\U0001f600"'.encode()


def test_literals_and_structure_of_rfc_8785() -> None:
    value: JSONValue = {
        "literals": [None, True, False],
        "1": {"f": {"f": "hi", "F": 5}, "\n": 56},
        "": "empty",
        "a": [[], {}],
    }
    expected = b'{"":"empty","1":{"\\n":56,"f":{"F":5,"f":"hi"}},"a":[[],{}],"literals":[null,true,false]}'
    assert canonical_json(value) == expected


@pytest.mark.parametrize(
    "value",
    [1.0, float("nan"), MAX_INTEGER + 1, -MAX_INTEGER - 1, {"\u00e9": 1}, {1: 1}, b"x", {1, 2}, "\ud800", {"a": [0.5]}],
)
def test_what_has_no_place_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="canonical JSON"):
        canonical_json(value)  # type: ignore[arg-type]


def test_sha256_hex() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
