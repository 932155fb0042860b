"""Requests generated from the OpenAPI document: no server error, no answer that is not described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from embedsvc.server.app import create_app
from embedsvc.settings import Settings
from tests.server_process import Server

OPERATIONS = [
    (method, path)
    for path, methods in create_app(Settings()).openapi()["paths"].items()
    for method in methods
    if path not in ("/ready", "/metrics")  # without parameters, and slow
]


def one_line(_context: object, text: str) -> bytes:
    return json.dumps(text).encode()


@pytest.fixture(scope="module")
def schemathesis() -> ModuleType:
    module = pytest.importorskip("schemathesis", reason="needs the schemathesis package")
    module.serializer("application/x-ndjson")(one_line)
    return module


@pytest.fixture(scope="module")
def checked() -> list[object]:
    """Not that whatever fits the schema is taken: a blank text or an unknown collection fits it too."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    return [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]


@pytest.fixture(scope="module")
def described(schemathesis: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    folder = str(tmp_path_factory.mktemp("data"))
    server = Server("--data-dir", folder, "--max-batch-texts", "64", "--request-timeout-s", "5")
    yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    server.stop()


@pytest.mark.parametrize("examples", [6, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_generated_requests_are_answered_as_described(described, checked, method, path, examples):
    @given(case=described[path][method].as_strategy())
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        case.call_and_validate(checks=checked)

    check()
