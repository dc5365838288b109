"""The whole table of outcomes, by where an attempt broke, HTTP status and code. What is not listed is not retried."""

from typing import Any

import orjson
import pytest
from support import ACCEPTED, ScriptedTransport

from nxotp_async import NotSentError, OtpMessage, OutcomeUnknownError, RetryPolicy, SendResult, SendStatus
from nxotp_async.sandbox import sandbox_client
from nxotp_async.testing import FakeClock

STATUSES = (200, 201, 202, 204, 300, 301, 302, 307, 308, 400, 401, 403, 404, 408, 413, 418, 425, 429, 499)
SERVER_ERRORS = (500, 501, 502, 503, 504, 521, 599)
TABLED = (-1, 1001, 1002, 1003, 1005, 9000, 9001, 9002, 9003, 9004, 9005, 9006, 9007, 9013, 9014, 9015, 10003, 10005)
UNTABLED = (-2, 1, 2, 429, 500, 502, 1006, 9008, 9098, 9100, 99999)
TRANSIENT = (-1, 9001)
TEMPORARY_META = (4, 80007, 130429, 131056, 131016, 131057, 133004)
LASTING_META = (0, 1, 100, 190, 131000, 131026, 131051, 132001)

ONCE, AGAIN = 1, 3
RECONNECT = 5  # in ten seconds, with the longest pauses


async def what_becomes_of(clock: FakeClock, outcome: Any, **policy: Any) -> tuple[SendStatus, int]:
    """Meet every attempt with this outcome, and return the status and the number of POSTs."""
    transport = ScriptedTransport(outcome)
    async with sandbox_client(
        "https://otp.example", transport=transport, clock=clock, retry=RetryPolicy(**policy), deadline=1e6
    ) as client:
        (result,) = [result async for result in client.send_many([OtpMessage("+999 555 0100", "482913")])]
    assert isinstance(result, SendResult)
    assert (result.error is None) == (result.status is SendStatus.ACCEPTED)
    assert (result.message_id is not None) == (result.status is SendStatus.ACCEPTED)
    return result.status, len(transport.posts)


def with_code(code: int) -> bytes:
    return orjson.dumps({"code": code, "message": "no", "data": None})


def with_meta(code: object) -> bytes:
    return orjson.dumps({"code": 9099, "message": "WhatsApp error", "data": {"error": {"code": code}}})


ROWS: list[tuple[str, Any, SendStatus, int]] = [
    # A known code says what it says, whatever the HTTP status.
    *(
        (f"code {code}, HTTP {status}", (status, {}, with_code(code)), SendStatus.REJECTED, ONCE)
        for code in TABLED
        if code not in TRANSIENT
        for status in (*STATUSES, *SERVER_ERRORS)
    ),
    *(
        (f"code {code}, HTTP {status}", (status, {}, with_code(code)), SendStatus.REJECTED, AGAIN)
        for code in TRANSIENT
        for status in (*STATUSES, *SERVER_ERRORS)
    ),
    *(
        (f"Meta {code!r}, HTTP {status}", (status, {}, with_meta(code)), SendStatus.REJECTED, AGAIN)
        for code in (*TEMPORARY_META, *map(str, TEMPORARY_META))
        for status in (200, 400, 429, 500)
    ),
    *(
        (f"Meta {code!r}, HTTP {status}", (status, {}, with_meta(code)), SendStatus.REJECTED, ONCE)
        for code in (*LASTING_META, None, "", "four", 4.0, True, [4])
        for status in (200, 400, 429, 500)
    ),
    # A code no table lists may be a gateway's.
    *(
        (f"code {code}, HTTP {status}", (status, {}, with_code(code)), SendStatus.REJECTED, ONCE)
        for code in UNTABLED
        for status in STATUSES
        if status not in (408, 429)
    ),
    *((f"code {code}, HTTP 429", (429, {}, with_code(code)), SendStatus.REJECTED, AGAIN) for code in UNTABLED),
    *(
        (f"code {code}, HTTP {status}", (status, {}, with_code(code)), SendStatus.UNKNOWN, ONCE)
        for code in UNTABLED
        for status in (408, *SERVER_ERRORS)
    ),
    # Accepted is only what says so in every way.
    *((f"accepted, HTTP {status}", (status, {}, ACCEPTED), SendStatus.ACCEPTED, ONCE) for status in (200, 201, 202)),
    *(
        (f"accepted, HTTP {status}", (status, {}, ACCEPTED), SendStatus.UNKNOWN, ONCE)
        for status in (100, 199, *SERVER_ERRORS, *(status for status in STATUSES if status >= 300))
    ),
    *(
        (f"code 0 without an id, HTTP {status}", (status, {}, with_code(0)), SendStatus.UNKNOWN, ONCE)
        for status in (*STATUSES, *SERVER_ERRORS)
    ),
    # Without a code the HTTP status decides.
    *(
        (f"{name}, HTTP {status}", (status, {}, body), expected, posts)
        for name, body in {
            "HTML": b"<html></html>",
            "nothing": b"",
            "half an answer": ACCEPTED[:50],
            "a string for a code": b'{"code":"0"}',
            "too long": b" " * 70_000,
        }.items()
        for statuses, expected, posts in [
            ((200, 201, 204), SendStatus.UNKNOWN, ONCE),
            ((300, 301, 302, 307, 308), SendStatus.REJECTED, ONCE),
            ((400, 401, 403, 404, 413, 418, 425, 499), SendStatus.REJECTED, ONCE),
            ((429,), SendStatus.REJECTED, AGAIN),
            (SERVER_ERRORS, SendStatus.UNKNOWN, ONCE),
            ((100, 102, 408, 600, 999), SendStatus.UNKNOWN, ONCE),
        ]
        for status in statuses
    ),
    # No answer: the side of the first byte decides.
    ("not sent, for now", NotSentError("refused", temporary=True), SendStatus.NOT_SENT, RECONNECT),
    ("not sent, for good", NotSentError("certificate"), SendStatus.NOT_SENT, ONCE),
    ("lost", OutcomeUnknownError("reset"), SendStatus.UNKNOWN, ONCE),
    ("a timeout of nobody's", TimeoutError(), SendStatus.UNKNOWN, ONCE),
    ("an error of the transport's own", RuntimeError("bug"), SendStatus.UNKNOWN, ONCE),
]


# The rows that have the same outcome after as many POSTs, by name.
GROUPS: dict[tuple[SendStatus, int], dict[str, Any]] = {}
for name, outcome, status, posts in ROWS:
    GROUPS.setdefault((status, posts), {})[name] = outcome
IDS = [f"{status}, {posts}" for status, posts in GROUPS]


@pytest.mark.parametrize(("expected", "rows"), GROUPS.items(), ids=IDS)
async def test_every_event_has_its_outcome(expected: tuple[SendStatus, int], rows: dict[str, Any]) -> None:
    others = {name: became for name in rows if (became := await what_becomes_of(FakeClock(), rows[name])) != expected}
    assert not others


# What a policy makes of an outcome goes by the class of its error only: some rows of each group tell.
@pytest.mark.parametrize(("expected", "rows"), GROUPS.items(), ids=IDS)
async def test_other_policies(expected: tuple[SendStatus, int], rows: dict[str, Any], clock: FakeClock) -> None:
    status, posts = expected
    for outcome in list(rows.values())[-5:]:
        assert await what_becomes_of(clock, outcome, max_attempts=1) == (status, ONCE)
        resent = AGAIN if status is SendStatus.UNKNOWN else posts
        assert await what_becomes_of(clock, outcome, resend_unknown=True) == (status, resent)


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({name for name, *_ in ROWS}) == len(ROWS)
