"""``nxotp listen``: which callbacks are shown, and how."""

import asyncio
import json
import re
import signal
import socket
import time
from urllib.parse import urlsplit

import pytest
from bulk_commands import GOOD, callback, otps
from commands import CONTENT, KEYS, Env, Start, finish, invoke, posix
from listen_commands import line_of, push, signature, until, url_of

from nxotp_async.sandbox import CallbackPlan, Sandbox, sandbox_client
from nxotp_async.testing import serve_in_thread

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


TOKEN = "an-unguessable-path"


@posix
def test_callbacks_are_lines_of_a_table_each_once_and_only_as_far_as_they_are_news(listen: Start) -> None:
    process = listen()
    url = url_of(process)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
    for status in ("sent", "sent", "delivered", "sent", "delivered", "read", "delivered"):
        assert push(url, callback("id-1", status)) == 200
    errors = [{"code": 131026, "title": "Message undeliverable"}, {"title": "[red]no[/red]"}]
    assert push(url, callback("id-2", "failed", errors=errors)) == 200
    assert push(url, callback("id-3", "sent", timestamp=None, recipient_id=None)) == 200
    shown = [line_of(process) for _ in range(5)]
    assert shown == [
        f"08:00:00  sent       {'id-1':<40} 99******00\n",
        f"08:00:00  delivered  {'id-1':<40} 99******00\n",
        f"08:00:00  read       {'id-1':<40} 99******00\n",
        f"08:00:00  failed     {'id-2':<40} 99******00  131026 Message undeliverable; [red]no[/red]\n",
        "--:--:--  sent       id-3\n",
    ]
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "", "stopped\n")


@posix
def test_callbacks_as_json_are_one_object_a_line_and_a_token_is_their_path(listen: Start) -> None:
    process = listen("--json", env={**KEYS, "NXOTP_CALLBACK_TOKEN": TOKEN})
    url = url_of(process)
    assert urlsplit(url).path == f"/{TOKEN}"
    assert push(url.removesuffix(TOKEN), callback("id-1", "deleted")) == 404
    errors = [{"code": 131026, "title": "Message undeliverable"}]
    for body in (
        callback("id-1", "sent", cost={"currency": "USD", "foreign_price": 0.02, "cdr_type": 6}),
        callback("id-1", "sent"),
        callback("id-2", "failed", errors=errors, recipient_id=None, timestamp=None),
        b'{"button": "clicked"}',
    ):
        assert push(url, body) == 200
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, err) == (0, "stopped\n")
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "message_id": "id-1",
            "status": "sent",
            "timestamp": "2027-01-15T08:00:00+00:00",
            "recipient": "99******00",
            "errors": [],
            "costs": [
                {
                    "currency": "USD",
                    "foreign_price": "0.02",
                    "price": None,
                    "cdr_type": 6,
                    "message_id": "",
                    "direction": None,
                }
            ],
        },
        {"message_id": "id-2", "status": "failed", "timestamp": None, "recipient": "", "errors": errors, "costs": []},
    ]


@posix
def test_what_is_not_the_vendors_is_refused_and_not_shown(listen: Start) -> None:
    process = listen()
    url = url_of(process)
    body = callback("id-1", "deleted")
    good = signature(body)
    for headers, status in (
        ({}, 401),
        ({**good, "sign": "0" * 64}, 401),
        ({**good, "accessKey": "another"}, 401),
        (signature(callback("id-1", "read")), 401),
        (signature(body, ts=time.time() - 301), 401),
        ({name: value for name, value in good.items() if name != "sign"}, 401),
    ):
        assert push(url, body, headers) == status
    assert push(f"{url}{TOKEN}", body) == 404
    assert push(url, b"no JSON") == 400
    assert push(url, callback("id-1", "sent")) == 200
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out.split()) == (0, ["08:00:00", "sent", "id-1", "99******00"])
    assert "Traceback" not in err
    assert KEYS["NXOTP_ACCESS_SECRET"] not in err


@posix
def test_a_sandbox_that_repeats_and_forges_its_callbacks_is_listened_to(listen: Start) -> None:
    process = listen("--json")
    url = url_of(process)
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(copies=3, shuffle=True, forged=1.0))) as sandbox:

        async def send() -> None:
            async with sandbox_client(sandbox.url, dr_webhook=url) as client:
                for place, number in enumerate(GOOD[:5]):
                    await client.send_otp(number, CONTENT, cus_message_id=f"id-{place}")

        asyncio.run(send())
        until(lambda: sandbox.counts["callbacks taken"] == sandbox.counts["forged callbacks refused"] == 45)
    process.send_signal(signal.SIGTERM)
    code, out, _ = finish(process)
    shown = [json.loads(line) for line in out.splitlines()]
    for place in range(5):
        statuses = [event["status"] for event in shown if event["message_id"] == f"id-{place}"]
        assert statuses[-1] == "read"
        assert statuses == [status for status in ("sent", "delivered", "read") if status in statuses]
    assert {event["recipient"] for event in shown} == {f"99******0{place}" for place in range(5)}
    assert code == 0


@posix
@pytest.mark.parametrize("env", [KEYS, {}], ids=["with keys", "without"])
def test_unsigned_callbacks_need_a_token_which_is_made_up(listen: Start, env: Env) -> None:
    process = listen("--unsigned", env=env)
    url = url_of(process)
    address = urlsplit(url)
    assert re.fullmatch(r"/[\w-]{32}", address.path)
    body = callback("id-1", "sent")
    root = f"http://{address.netloc}/"
    assert [push(root, body, {}), push(f"{root}{TOKEN}", body, {}), push(url, body, {})] == [404, 404, 200]
    signed = callback("id-1", "delivered")
    # Without keys nobody can tell whose a signature is: the token has to do.
    assert push(url, signed, {**signature(signed), "sign": "0" * 64}) == (401 if env else 200)
    assert push(url, signed) == 200
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    assert (code, [line.split()[1] for line in out.splitlines()]) == (0, ["sent", "delivered"])


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("listen", "--port", str(port), env=KEYS)
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.fullmatch(rf"nxotp: cannot listen on 127\.0\.0\.1:{port}: .*in use.*\n", result.stderr)


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "x" * 70], ids=["not ours", "no name", "too long"])
def test_a_host_that_cannot_be_listened_on_is_told_in_one_line(host: str) -> None:
    result = invoke("listen", "--host", host, "--port", "0", env=KEYS)
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.fullmatch(rf"nxotp: cannot listen on {re.escape(host)}:0: .+\n", result.stderr)


@pytest.mark.parametrize(
    ("options", "missing", "said"),
    [
        ((), ("NXOTP_ACCESS_KEY",), "are missing: set NXOTP_ACCESS_KEY ("),
        ((), ("NXOTP_ACCESS_SECRET",), "are missing: set NXOTP_ACCESS_SECRET ("),
        (("--token", TOKEN), ("NXOTP_ACCESS_KEY", "NXOTP_ACCESS_SECRET"), "NXOTP_ACCESS_KEY and NXOTP_ACCESS_SECRET ("),
        (("--token", "too-short"), (), "--token (or NXOTP_CALLBACK_TOKEN) must be 16 or more of the characters"),
        (("--token", ""), (), "--token (or NXOTP_CALLBACK_TOKEN) must be 16 or more of the characters"),
        (("--unsigned", "--token", "with/a-slash-in-the-midst"), (), "16 or more of the characters"),
    ],
)
def test_what_would_not_verify_callbacks_is_told(options: tuple[str, ...], missing: tuple[str, ...], said: str) -> None:
    env = {name: value for name, value in KEYS.items() if name not in missing}
    result = invoke("listen", "--port", "0", *options, env=env)
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [("--port", "-1"), ("--port", "65536"), ("--port", "x"), ("extra",), ("--no",)])
def test_listen_refuses_wrong_usage(options: tuple[str, ...]) -> None:
    assert invoke("listen", *options, env=KEYS).exit_code == 2


@pytest.mark.parametrize("window", ["0", "-1", "nan", "inf", "soon", "0.0"])
@pytest.mark.parametrize("command", [("listen",), ("bulk", "run", "otps.csv"), ("bulk", "resume", "run.db")])
def test_a_window_that_is_none_is_wrong_usage(command: tuple[str, ...], window: str) -> None:
    otps(GOOD[0])
    result = invoke(*command, "--window", window, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value for '--window'" in result.stderr


@posix
def test_how_far_a_callback_may_be_away_can_be_chosen(listen: Start) -> None:
    process = listen("--window", "1000")
    url, now = url_of(process), time.time()
    body = callback("id-1", "sent")
    assert [push(url, body, signature(body, ts=now + off)) for off in (-1100, 1100, -800, 800)] == [401, 401, 200, 200]
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 0
    assert err.count("the callback's ts differs from this machine's clock by more than 1000 s") == 2
