"""What the sandbox's OpenAPI document says, held against the server with requests that it describes, and wrong ones."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings

from nxotp_async.sandbox import CallbackPlan, Sandbox
from nxotp_async.testing import serve_in_thread

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: it is in the group dev")
checks = pytest.importorskip("schemathesis.checks")

DOCUMENT = orjson.loads((files("nxotp_async.sandbox") / "page" / "openapi.json").read_bytes())
api = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/sandbox/events")  # a stream has no end


@pytest.fixture(scope="module")
def live() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(webhook="http://127.0.0.1:9/"))) as sandbox:
        yield sandbox


@api.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=12, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_the_server_does_what_its_document_says(case: Any, live: Sandbox) -> None:
    if case.path == "/sandbox/wait" and str(case.query.get("timeout", "0")).replace(".", "").isdecimal():
        case.query["timeout"] = 0  # nothing comes
    # What the vendor refuses is answered with 200, too.
    vendors = case.path.startswith("/api/")
    excluded = [checks.negative_data_rejection, checks.missing_required_header] if vendors else []
    case.call_and_validate(base_url=live.url, excluded_checks=excluded)
