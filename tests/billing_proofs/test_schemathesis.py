"""Schemathesis against the running service: no 5xx, no undocumented answer, no ignored authentication."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from support.vendor.live_parties import Vendor, free_port
from support.vendor.serving_shop import png

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
    unsupported_method,
]
IMAGE = base64.b64encode(png("red")).decode()
SCOPES = "embed,billing,admin"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    opened = Vendor(tmp_path_factory.mktemp("vendor") / "home", free_port())
    opened.start()
    yield opened
    opened.stop()


@dataclass(frozen=True)
class Known:
    """What exists at the vendor, to be asked for beside what does not."""

    secret: str
    item_key: str
    request_id: str
    account: str = "tester"

    def put_into(self, case: Case) -> None:
        """Name things that exist in a generated request, so that it may succeed."""
        for name in ("account", "request_id"):
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = getattr(self, name)
        if not isinstance(case.body, dict):
            return
        keys, items = case.body.get("item_keys"), case.body.get("items")
        if isinstance(keys, list):
            case.body["item_keys"] = [self.item_key, *keys]
        if isinstance(items, list):
            for item in items[::2]:
                if isinstance(item, dict) and isinstance(item.get("image"), str):
                    item["image"] = IMAGE


@pytest.fixture(scope="module")
def known(vendor: Vendor) -> Known:
    """An account with a key that may do everything, a budget that lasts, and one purchase."""
    words = ("keys", "create", "--account", Known.account, "--budget", "1000000", "--scopes", SCOPES, "--json")
    made = vendor.command(*words)
    assert made.code == 0, made.err
    secret, item_key = str(json.loads(made.out)["secret"]), "a" * 64
    bought = httpx.post(
        f"{vendor.url}/v1/embeddings/images",
        json={"items": [{"image": IMAGE, "item_key": item_key}]},
        headers={"Authorization": f"Bearer {secret}"},
    )
    return Known(secret, item_key, bought.json()["request_id"])


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("credentials", ["valid", "wrong", "none"])
def test_every_operation_answers_as_documented(
    credentials: str,
    vendor: Vendor,
    known: Known,
    full: bool,
    scale: Callable[[int, int], int],
    prove: Callable[..., None],
) -> None:
    headers = {
        "valid": {"Authorization": f"Bearer {known.secret}"},
        "wrong": {"Authorization": f"Bearer vl2v_{'A' * 43}"},
        "none": {},
    }[credentials]
    schema = schemathesis.openapi.from_url(f"{vendor.url}/openapi.json")
    examples = scale(2, 200) if credentials == "valid" else scale(1, 100)
    profile = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not full,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        answered: Counter[int] = Counter()
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            try:
                try_out(operation.as_strategy(generation_mode=mode), known, headers, profile, answered)
            except (Failure, FailureGroup) as fault:
                faults.append(f"{operation.label}: {fault}")
        sys.stderr.write(f"{credentials} key, {operation.label}: {dict(answered)}\n")
        statuses += answered
    assert not faults, "\n".join(faults)
    prove(f"answers as documented, {credentials} key", statuses.total(), goal="all, and no 5xx", met=not faults)


def try_out(
    cases: SearchStrategy[Case], known: Known, headers: dict[str, str], profile: settings, answered: Counter[int]
) -> None:
    """Send generated requests, hold each answer against the document, and count them by status."""

    @profile
    @given(cases)
    def send(case: Case) -> None:
        if answered.total() % 2:
            known.put_into(case)
        response = case.call_and_validate(headers=headers, checks=CHECKS)
        answered[response.status_code] += 1

    with suppress(Unsatisfiable):  # negative mode, of an operation that takes nothing which could be wrong
        send()
