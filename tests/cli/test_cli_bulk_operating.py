"""``nxotp bulk``: requeueing, budgets, money, and callbacks that were collected elsewhere."""

import json
import re
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from bulk_commands import GOOD, bulk, callback, counts_of, otps, received, results_of
from commands import CONTENT, Env, Start, finish, posix, read_until
from listen_commands import line_of, push, url_of
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from nxotp_async.bulk import Ledger
from nxotp_async.sandbox import Fault, Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory", "short_holds")

LEDGER = "otps.csv.ledger"


# ---------------------------------------------------------------------------------------------- requeue


def test_what_was_rejected_is_queued_again_once_mended(live: Sandbox, account: Env) -> None:
    live.script(Fault(), Fault.answer(10005), Fault.answer(10005), Fault.answer(9015))
    assert bulk("run", otps(*GOOD[:5]), "--concurrency", "1", "--keep-codes", env=account).exit_code == 1
    assert counts_of() == {"accepted": 2, "rejected": 3}
    requeued = bulk("requeue", LEDGER, "--code", "10005")
    assert (requeued.exit_code, requeued.stderr) == (0, "2 of 2 rejected messages queued again\n")
    (rejected,) = [row["cus_message_id"] for row in results_of() if row["status"] == "rejected"]
    assert bulk("requeue", LEDGER, rejected).exit_code == 0
    assert bulk("resume", LEDGER, env=account).exit_code == 0
    assert received(live) == list(GOOD[:5])


def test_without_their_codes_none_is(live: Sandbox, account: Env) -> None:
    live.script(*[Fault.answer(10005)] * 2)
    bulk("run", otps(*GOOD[:2]), env=account)
    requeued = bulk("requeue", LEDGER, "--all")
    assert (requeued.exit_code, counts_of()) == (1, {"rejected": 2})
    assert requeued.stderr == (
        "0 of 2 rejected messages queued again\nnxotp: 2 have no code any more: it has expired, or was not kept\n"
    )
    requeued = bulk("requeue", LEDGER, "no-such-id")
    assert (requeued.exit_code, requeued.stderr.splitlines()[-1]) == (1, "nxotp: no message of these was rejected")


@pytest.mark.parametrize("which", [(), ("--all", "an-id"), ("--all", "--code", "10005")])
def test_which_messages_must_be_said(which: tuple[str, ...]) -> None:
    refused = bulk("requeue", LEDGER, *which)
    assert refused.exit_code == 2
    assert "name the messages: their ids, --code, or --all" in refused.stderr


# ---------------------------------------------------------------------------------------------- budgets


def test_a_run_ends_before_its_budget_is_passed(live: Sandbox, account: Env) -> None:
    result = bulk("run", otps(*GOOD[:10]), "--budget", "0.2USD", "--price", "0.05", env=account)
    assert (result.exit_code, len(live.messages), counts_of()) == (3, 4, {"accepted": 4, "queued": 6})
    assert "paused: another message could cost more than the budget of 0.2 USD allows" in result.stderr
    cost = {"costs": [{"currency": "USD", "foreign_price": "0.01"}]}
    lines = [callback(row["cus_message_id"], "sent", **cost) for row in results_of() if row["status"] == "accepted"]
    Path("callbacks.ndjson").write_bytes(b"".join(lines))
    assert bulk("resolve", LEDGER, "--callbacks", "callbacks.ndjson").exit_code == 0
    assert json.loads(bulk("status", LEDGER, "--json").stdout)["countries"][0]["costs"] == {"USD": "0.04"}
    shown = bulk("status", LEDGER).stdout
    assert "0.04 USD" in shown
    assert bulk("resume", LEDGER, "--budget", "0.2 usd", "--price", "0.05", env=account).exit_code == 3
    assert counts_of() == {"accepted": 7, "queued": 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "5"), "--budget requires --price, what one message costs at the most: --price 0.05"),
        (("--budget", "-5", "--price", "1"), "expected an amount, with its currency unless that is CNY"),
        (("--budget", "5 dollars", "--price", "1"), "expected an amount"),
        (("--budget", "5", "--price", "1USD"), "expected an amount above 0, without a currency"),
        (("--budget", "5", "--price", "0"), "expected an amount above 0"),
    ],
)
def test_a_budget_that_is_none_is_refused(live: Sandbox, account: Env, options: tuple[str, ...], said: str) -> None:
    refused = bulk("run", otps(GOOD[0]), *options, env=account)
    assert (refused.exit_code, len(live.requests)) == (2, 0)
    assert said in refused.stderr
    assert not Path(LEDGER).exists()


# ---------------------------------------------------------------------------------------------- callbacks, days later


@posix
def test_what_listen_prints_completes_the_funnel_days_later(
    live: Sandbox, account: Env, start: Start, listen: Start
) -> None:
    assert bulk("run", otps(*GOOD[:4]), env=account).exit_code == 0
    ids = [row["cus_message_id"] for row in results_of()]
    listening = listen("--json")
    url = url_of(listening)
    printed = []
    for message_id, status in zip(ids, ("delivered", "read", "failed", "sent"), strict=True):
        cost = {"costs": [{"currency": "USD", "foreign_price": "0.025", "price": "0.18", "cdr_type": 6}]}
        assert push(url, callback(message_id, status, **cost)) == 200
        printed.append(line_of(listening))
    listening.terminate()
    assert finish(listening)[0] == 0
    Path("callbacks.ndjson").write_text("".join(printed))
    resolved = bulk("resolve", LEDGER, "--callbacks", "callbacks.ndjson")
    assert resolved.stderr == "4 callbacks read; they updated messages 4 times; 0 unknown\n"
    fields = json.loads(bulk("status", LEDGER, "--json").stdout)
    assert fields["receipts"] == {"sent": 4, "delivered": 2, "read": 1, "failed": 1}
    assert fields["countries"][0]["costs"] == {"USD": "0.1"}


def test_what_is_resolved_by_hand_is_no_callback(live: Sandbox, account: Env) -> None:
    live.script(Fault.http(500), Fault.http(500))
    bulk("run", otps(*GOOD[:2]), "--concurrency", "1", env=account)
    first, second = (row["cus_message_id"] for row in results_of())
    bulk("resolve", LEDGER, "failed", first)
    bulk("resolve", LEDGER, "delivered", second)
    assert json.loads(bulk("status", LEDGER, "--json").stdout)["receipts"] == dict.fromkeys(
        ("sent", "delivered", "read", "failed"), 0
    )
    with Ledger(LEDGER) as ledger:
        assert ledger.counts() == {"accepted": 1, "rejected": 1}


# ---------------------------------------------------------------------------------------------- progress, metrics


def test_progress_as_json_is_one_object_a_line_with_a_first_and_a_last(live: Sandbox, account: Env) -> None:
    result = bulk("run", otps(*GOOD[:60]), "--rate", "100", "--progress", "json", env=account)
    looks = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert result.exit_code == 0
    assert len(looks) == 2
    assert (looks[0]["total"], looks[0]["limit"], looks[0]["is_paused"]) == (60, 100, False)
    assert 0 < looks[0]["accepted"] < 60
    assert (looks[1]["accepted"], looks[1]["queued"], looks[1]["in_flight"]) == (60, 0, 0)


@posix
def test_prometheus_reads_the_metrics_of_a_run(live: Sandbox, account: Env, start: Start) -> None:
    run = start("bulk", "run", otps(*GOOD[:40]), "--rate", "0.5", "--metrics", "0", env=account)
    url = read_until(run.stderr, r"metrics on \S+\n").split()[-1]
    assert url.startswith("http://127.0.0.1:")
    while not live.messages:
        assert run.poll() is None
    bulk("pause", LEDGER)
    with urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert re.search(r'^nxotp_bulk_messages\{.*nxotp_state="queued".*\} (3[5-9]|40)\.0$', text, re.MULTILINE), text
    assert re.search(r"^nxotp_bulk_paused_?\w*(\{.*\})? 1\.0$", text, re.MULTILINE), text
    assert "nxotp_client_messages" in text
    assert not any(number in text for number in GOOD)
    assert bulk("set", LEDGER, "--no-rate").exit_code == 0
    assert bulk("resume", LEDGER).exit_code == 0
    assert finish(run)[0] == 0


def test_without_their_extras_metrics_say_what_to_install(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    refused = bulk("run", otps(GOOD[0]), "--metrics", "0", env=account)
    assert (refused.exit_code, len(live.requests)) == (3, 0)
    assert 'pip install "nxotp_async[prometheus]"' in refused.stderr
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    refused = bulk("resume", LEDGER, "--otel", env=account)
    assert (refused.exit_code, len(live.requests)) == (3, 0)
    assert 'pip install "nxotp_async[otel]"' in refused.stderr


def test_opentelemetrys_own_providers_get_what_a_run_does(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter_provider", lambda: provider)
    monkeypatch.setattr("nxotp_async.otel.get_meter_provider", lambda: provider)
    assert bulk("run", otps(*GOOD[:3]), "--otel", env=account).exit_code == 0
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [
        metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    ]
    (messages,) = [metric for metric in metrics if metric.name == "nxotp.bulk.messages"]
    found = {dict(point.attributes or {})["nxotp.state"]: point.value for point in messages.data.data_points}  # type: ignore[union-attr]
    assert (found["accepted"], found["queued"]) == (3, 0)
    provider.shutdown()


# ---------------------------------------------------------------------------------------------- corrected rows


@pytest.mark.parametrize("file_format", ["csv", "ndjson"])
def test_once_its_rejects_are_corrected_a_ledger_is_all_accepted(live: Sandbox, account: Env, file_format: str) -> None:
    if file_format == "csv":
        file, good = otps(GOOD[0], "0555", GOOD[1], "0666"), ("0555", "0666")
    else:
        file, good = "otps.ndjson", ("0555", "0666")
        numbers = (GOOD[0], "0555", GOOD[1], "0666")
        Path(file).write_text("".join(json.dumps({"to": to, "content": CONTENT}) + "\n" for to in numbers))
    ledger, rejects = f"{file}.ledger", Path(f"otps.rejects.{file_format}")
    assert bulk("run", file, env=account).exit_code == 1
    rejects.write_text(rejects.read_text().replace(good[0], GOOD[2]))
    assert bulk("run", str(rejects), "--ledger", ledger, env=account).exit_code == 1
    assert counts_of(ledger) == {"accepted": 3, "not_sent": 1}
    again = Path(f"otps.rejects.rejects.{file_format}")
    again.write_text(again.read_text().replace(good[1], GOOD[3]))
    assert bulk("run", str(again), "--ledger", ledger, env=account).exit_code == 0
    for command in (("run", file), ("resume", ledger), ("run", str(rejects), "--ledger", ledger)):
        assert bulk(*command, env=account).exit_code == 0
    assert counts_of(ledger) == {"accepted": 4}
    assert len(bulk("export", ledger, "--format", "ndjson").stdout.splitlines()) == 4
    assert received(live) == list(GOOD[:4])
