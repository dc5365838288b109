import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from nxotp_async import AccountError, ConfigurationError, InvalidMessageError
from nxotp_async.doctor import Check, Finding, Status, examine, is_local, machine, send_one
from nxotp_async.sandbox import SANDBOX_CREDENTIALS, Sandbox
from nxotp_async.settings import SETTINGS
from nxotp_async.testing import FakeClock

WAY = (Check.DNS, Check.CONNECTION, Check.HTTP, Check.CLOCK)
KEYS = {
    "NXOTP_ACCESS_KEY": SANDBOX_CREDENTIALS.access_key,
    "NXOTP_ACCESS_SECRET": SANDBOX_CREDENTIALS.access_secret,
    "NXOTP_APPKEY": SANDBOX_CREDENTIALS.appkey,
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def authorities(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authorities") / "authorities.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(autouse=True)
def _machine(authorities: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tests' authority the only one of the system's, and have no proxies."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


Set = Callable[..., None]


@pytest.fixture
def set_(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Set variables: the keys, and those that are named without NXOTP_."""

    def set_(**values: str) -> None:
        for name, value in (KEYS | {f"NXOTP_{name}": value for name, value in values.items()}).items():
            monkeypatch.setenv(name, value)

    return set_


def of(findings: list[Finding], check: Check) -> list[Finding]:
    return [finding for finding in findings if finding.check is check]


def one(findings: list[Finding], check: Check) -> Finding:
    (finding,) = of(findings, check)
    return finding


def statuses(findings: list[Finding]) -> str:
    """Return the initials of what the way to the API came to."""
    return "".join(one(findings, check).status[0] for check in WAY)


def about(findings: list[Finding], name: str) -> Finding:
    (finding,) = [finding for finding in findings if re.search(rf"\b{name}\b", finding.found)]
    return finding


@asynccontextmanager
async def web_server(
    answer: Callable[[web.Request], web.Response], context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Run a server that answers every GET, and yield its host and port."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    try:
        yield f"localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def bare_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]],
) -> AsyncIterator[str]:
    """Run a server below HTTP, and yield its address. Each request's head is read before."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type] # it runs in one
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def saying(payload: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        await writer.drain()

    return say


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# ---------------------------------------------------------------------------------------------- all is well


async def test_with_the_sandbox_all_is_well_and_nothing_is_posted(
    sandbox: Sandbox, clock: FakeClock, set_: Set
) -> None:
    set_(BASE_URL=sandbox.url)
    findings = await examine(clock=clock)
    assert {finding.status for finding in findings} == {Status.OK}
    assert [check for check in Check if of(findings, check)] == [check for check in Check if check is not Check.SEND]
    assert [finding.check for finding in findings] == sorted(
        (finding.check for finding in findings), key=list(Check).index
    )
    assert "is an IP address" in one(findings, Check.DNS).found
    assert "without TLS" in one(findings, Check.CONNECTION).found
    assert re.match(r"HTTP 200 in \d+ ms", one(findings, Check.HTTP).found)
    assert not sandbox.counts


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
async def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be more than 0, and finite"):
        await examine(timeout=timeout)


# ---------------------------------------------------------------------------------------------- environment


async def environment() -> list[Finding]:
    context = await asyncio.to_thread(ssl.create_default_context)
    return machine.examine_environment(context)


async def test_the_versions_are_told() -> None:
    findings = await environment()
    for name in ("Python", "nxotp_async", "aiohttp", "orjson"):
        assert re.search(rf"{name} \d+\.\d+", about(findings, name).found)


@pytest.mark.parametrize("installed", [True, False])
async def test_uvloop_is_recommended_where_it_is_missing(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "uvloop" and not installed:
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(machine, "version", version)
    finding = about(await environment(), "uvloop")
    assert finding.status is Status.OK
    assert ("nxotp_async[fast]" in finding.advice) is not installed


@pytest.mark.parametrize(
    ("in_the_directory", "status", "found"),
    [
        ([], Status.WARNING, "no certificate authorities"),
        (["0a1b2c3d.0"], Status.OK, "the certificate authorities in "),
    ],
)
async def test_missing_certificate_authorities_are_noticed(
    in_the_directory: list[str], status: Status, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in in_the_directory:
        (tmp_path / name).touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    finding = about(await environment(), "authorities")
    assert (finding.status, finding.found[: len(found)]) == (status, found)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "http_proxy"])
async def test_a_proxy_of_the_environment_is_ignored_aloud(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://user:hunter2@proxy.example:3128")
    finding = about(await environment(), name)
    assert finding.status is Status.WARNING
    assert "NXOTP_PROXY" in finding.advice
    assert "hunter2" not in str(finding)
    monkeypatch.setenv("NXOTP_PROXY", "http://proxy.example:3128")
    assert not [finding for finding in await environment() if name in finding.found]


# ---------------------------------------------------------------------------------------------- settings


def test_all_missing_keys_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXOTP_APPKEY", "")
    finding = about(machine.examine_settings(), "missing")
    assert finding.status is Status.FAILED
    assert finding.found == "missing: NXOTP_ACCESS_KEY, NXOTP_ACCESS_SECRET, NXOTP_APPKEY"
    assert "nxotp sandbox" in finding.advice


def test_what_is_set_is_shown_as_far_as_it_may_be(set_: Set) -> None:
    set_(
        BASE_URL="https://gateway.example/nx",
        PROXY="http://user:hunter2@proxy.example:3128",
        DR_WEBHOOK="https://hooks.example/t0k3n?key=t0k3n",
        CALLBACK_TOKEN="t0k3n-t0k3n-t0k3n",
        BUSINESS_PHONE="+999 555 0199",
        LANGUAGE_CODE="pt-br",
        RATE_LIMIT="80",
        DEADLINE="",
    )
    findings = machine.examine_settings()
    assert {finding.status for finding in findings} == {Status.OK}
    assert [finding.found for finding in findings] == [
        "NXOTP_ACCESS_KEY: set, 18 characters",
        "NXOTP_ACCESS_SECRET: set, 21 characters",
        "NXOTP_APPKEY: set, 14 characters",
        "NXOTP_BUSINESS_PHONE: 99******99",
        "NXOTP_BASE_URL: https://gateway.example/nx",
        "NXOTP_DR_WEBHOOK: https://hooks.example/...",
        "NXOTP_LANGUAGE_CODE: pt_BR",
        "NXOTP_RATE_LIMIT: 80",
        "NXOTP_PROXY: http://proxy.example:3128, with a user name",
        "NXOTP_CALLBACK_TOKEN: set, 17 characters",
        (
            "not set (optional): NXOTP_DEFAULT_REGION, NXOTP_INSECURE_SANDBOX_HOST, NXOTP_MAX_CONCURRENCY, "
            "NXOTP_TIMEOUT, NXOTP_DEADLINE, NXOTP_KEEPALIVE_TIMEOUT, NXOTP_TRANSPORT, NXOTP_SENDERS, NXOTP_STORE, "
            "NXOTP_STORE_LISTEN, NXOTP_DATABASE_URL, NXOTP_OUTBOX_KEYS, NXOTP_OUTBOX_LISTEN"
        ),
    ]


def test_every_setting_that_has_a_variable_is_examined() -> None:
    (finding,) = [finding for finding in machine.examine_settings() if finding.status is Status.OK]
    names = finding.found.removeprefix("not set (optional): ").split(", ")
    assert names == [
        *(setting.variable for setting in SETTINGS.values() if setting.has_variable and not setting.is_required),
        *("NXOTP_CALLBACK_TOKEN", "NXOTP_SENDERS", "NXOTP_STORE", "NXOTP_STORE_LISTEN"),
        *("NXOTP_DATABASE_URL", "NXOTP_OUTBOX_KEYS", "NXOTP_OUTBOX_LISTEN"),
    ]


def test_every_wrong_variable_is_named_not_only_the_first(set_: Set) -> None:
    wrong = {
        "ACCESS_KEY": "two\nlines",
        "BASE_URL": "http://api.example",
        "PROXY": "proxy.example:3128",
        "DR_WEBHOOK": "webhook",
        "BUSINESS_PHONE": "0123",
        "LANGUAGE_CODE": "klingon",
        "MAX_CONCURRENCY": "1.5",
        "RATE_LIMIT": "fast",
        "TIMEOUT": "-1",
        "DEADLINE": "nan",
    }
    set_(**wrong)
    failed = [finding for finding in machine.examine_settings() if finding.status is Status.FAILED]
    assert len(failed) == len(wrong)
    for name in wrong:
        finding = about(failed, f"NXOTP_{name}")
        assert f"correct NXOTP_{name}" in finding.advice


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *(
            (value, "placeholder")
            for value in ("...", "xxxx", "<access key>", "$KEY", "${KEY}", "your-key", "Change-Me")
        ),
        *((value, "in quotes") for value in ("'s3cr3t'", '"s3cr3t"', 's3cr3t"')),
        ("s3cr3t s3cr3t", "white space"),
        *((value, "printable ASCII without spaces around") for value in (" s3cr3t", "s3cr3t\r", "s3cr3t\u200b")),
    ],
)
@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_looks_wrong_is_refused(name: str, value: str, why: str, set_: Set) -> None:
    set_(**{name.removeprefix("NXOTP_"): value})
    finding = about(machine.examine_settings(), name)
    assert finding.status is Status.FAILED
    assert why in finding.found
    assert "s3cr3t" not in str(finding)


@pytest.mark.parametrize("value", ["fme2na3kdi3ki", "qlQxxxxCM5", "yourself1", "xx1", "a-b_c"])
def test_a_key_that_looks_like_one_passes(value: str, set_: Set) -> None:
    set_(APPKEY=value)
    assert about(machine.examine_settings(), "NXOTP_APPKEY").status is Status.OK


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("NXOTP_ACCES_KEY", "did you mean NXOTP_ACCESS_KEY?"),
        ("NXOTP_ACCESSKEY", "did you mean NXOTP_ACCESS_KEY?"),
        ("NXTOP_APPKEY", "did you mean NXOTP_APPKEY?"),
        ("NX_OTP_PROXY", "did you mean NXOTP_PROXY?"),
        ("nxotp_base_url", "did you mean NXOTP_BASE_URL?"),
        ("NXOTP_RETRY", "no setting has this name"),
        ("NXOTP_\x1b[2J", "no setting has this name"),
    ],
)
def test_a_variable_that_nobody_reads_is_noticed(
    name: str, advice: str, monkeypatch: pytest.MonkeyPatch, set_: Set
) -> None:
    set_()
    monkeypatch.setenv(name, "s3cr3t")
    (finding,) = [finding for finding in machine.examine_settings() if finding.status is not Status.OK]
    assert finding.status is Status.WARNING
    assert finding.found == f"{name} is set, but not used".replace("\x1b", "?")
    assert finding.advice.startswith(advice)


def test_the_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, set_: Set) -> None:
    set_()
    for name in ("NX_CLOUD_ACCESS_TOKEN", "NX_BASE", "AWS_ACCESS_KEY", "OTP_APPKEY"):
        monkeypatch.setenv(name, "theirs")
    assert {finding.status for finding in machine.examine_settings()} == {Status.OK}


def test_a_host_for_plain_http_is_refused_beside_real_keys(monkeypatch: pytest.MonkeyPatch, set_: Set) -> None:
    set_(BASE_URL="http://sandbox:8099", INSECURE_SANDBOX_HOST="sandbox", ACCESS_SECRET="an-accounts")
    finding = about(machine.examine_settings(), "must not be set with an account's keys")
    assert finding.status is Status.FAILED
    assert finding.advice == "correct NXOTP_INSECURE_SANDBOX_HOST, or unset it"
    set_()
    assert {finding.status for finding in machine.examine_settings()} == {Status.OK}
    monkeypatch.delenv("NXOTP_INSECURE_SANDBOX_HOST")
    finding = about(machine.examine_settings(), "must be https")
    assert (finding.status, finding.advice) == (Status.FAILED, "correct NXOTP_BASE_URL, or unset it")
    assert "set NXOTP_INSECURE_SANDBOX_HOST=sandbox" in finding.found


def test_a_host_for_plain_http_is_a_host_alone(set_: Set) -> None:
    set_(INSECURE_SANDBOX_HOST="http://sandbox")
    finding = about(machine.examine_settings(), "NXOTP_INSECURE_SANDBOX_HOST")
    assert (finding.status, finding.advice) == (Status.FAILED, "correct NXOTP_INSECURE_SANDBOX_HOST, or unset it")


async def test_a_sandbox_in_another_container_is_examined(names: Callable[..., None], set_: Set) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names(fail)
    set_(BASE_URL="http://sandbox:8099", INSECURE_SANDBOX_HOST="sandbox")
    assert one(await examine(), Check.DNS).found.startswith("sandbox was not found")


async def test_wrong_keys_do_not_keep_the_way_from_being_examined(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NXOTP_BASE_URL", sandbox.url)
    monkeypatch.setenv("NXOTP_ACCESS_KEY", "...")
    assert statuses(await examine(clock=clock)) == "oooo"


@pytest.mark.parametrize("name", ["BASE_URL", "PROXY"])
async def test_without_an_address_the_way_is_not_examined(name: str, set_: Set) -> None:
    set_(**{name: "nonsense"})
    findings = await examine()
    assert statuses(findings) == "ssss"
    assert one(findings, Check.DNS).found == "not checked, because of settings"


# ---------------------------------------------------------------------------------------------- the name


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have names looked up by a function of the test's."""

    def answer_with(look_up: Callable[..., Awaitable[Any]]) -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)

    return answer_with


async def test_a_name_that_does_not_exist(names: Callable[..., None], set_: Set) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names(fail)
    set_(BASE_URL="https://otp.invalid")
    findings = await examine()
    assert statuses(findings) == "fsss"
    assert one(findings, Check.DNS).found == "otp.invalid was not found: Name or service not known"
    assert "NXOTP_BASE_URL" in one(findings, Check.DNS).advice
    assert "NXOTP_PROXY" in one(findings, Check.DNS).advice
    assert one(findings, Check.CONNECTION).found == "not checked, because of dns"


async def test_a_name_that_cannot_exist(set_: Set) -> None:
    set_(BASE_URL=f"https://{'a' * 64}.example")
    findings = await examine()
    assert statuses(findings) == "fsss"
    assert "it is not a valid name" in one(findings, Check.DNS).found


async def test_a_dns_server_that_never_answers(names: Callable[..., None], set_: Set) -> None:
    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    names(hang)
    set_(BASE_URL="https://otp.example")
    findings = await examine(timeout=0.01)
    assert statuses(findings) == "fsss"
    assert one(findings, Check.DNS).found == "looking up otp.example took more than 0.01 s"


async def test_the_addresses_of_a_name_are_told(set_: Set) -> None:
    async with web_server(lambda _: web.Response()) as address:
        set_(BASE_URL=f"http://{address}")
        assert "localhost resolves to 127.0.0.1" in one(await examine(), Check.DNS).found.replace("::1, ", "")


# ---------------------------------------------------------------------------------------------- the connection


async def test_a_closed_port(set_: Set) -> None:
    port = closed_port()
    set_(BASE_URL=f"http://127.0.0.1:{port}")
    findings = await examine()
    assert statuses(findings) == "ofss"
    assert one(findings, Check.CONNECTION).found == f"no connection to 127.0.0.1:{port}: Connection refused"
    assert "nxotp sandbox" in one(findings, Check.CONNECTION).advice


async def test_a_server_that_takes_no_connections(set_: Set) -> None:
    # The backlog is full, and nobody accepts: connecting hangs.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        blockers = [socket.socket() for _ in range(3)]
        for blocker in blockers:
            blocker.setblocking(False)
            blocker.connect_ex(listener.getsockname())
        set_(BASE_URL=f"https://127.0.0.1:{listener.getsockname()[1]}")
        findings = await examine(timeout=0.3)
        for blocker in blockers:
            blocker.close()
    assert statuses(findings) == "ofss"
    assert "within 0.3 s" in one(findings, Check.CONNECTION).found
    assert "if there is no way around a proxy, set NXOTP_PROXY" in one(findings, Check.CONNECTION).advice


def tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def self_signed(_: trustme.CA) -> ssl.SSLContext:
    other, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with other.cert_pem.tempfile() as certificate, other.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    return context


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@pytest.mark.parametrize(
    ("days", "status"), [(90.5, Status.OK), (14.5, Status.OK), (13.5, Status.WARNING), (0.5, Status.WARNING)]
)
async def test_a_certificate_that_expires_soon_is_a_warning(
    days: float, status: Status, authority: trustme.CA, set_: Set
) -> None:
    certificate = authority.issue_cert("localhost", not_after=in_days(days))
    async with web_server(lambda _: web.Response(), tls(certificate)) as address:
        set_(BASE_URL=f"https://{address}")
        findings = await examine()
    finding = one(findings, Check.CONNECTION)
    assert (finding.status, bool(finding.advice)) == (status, status is Status.WARNING)
    assert re.search(rf"{address} in \d+ ms, TLSv1\.3", finding.found)
    assert re.search(rf"the certificate was issued by trustme .*, and expires in {int(days)} days", finding.found)
    assert one(findings, Check.HTTP).status is Status.OK


@pytest.mark.parametrize(
    ("context", "found", "advice"),
    [
        pytest.param(
            lambda ca: tls(ca.issue_cert("localhost", not_after=in_days(-1))),
            "certificate has expired",
            "this machine's clock",
            id="expired",
        ),
        pytest.param(
            lambda ca: tls(ca.issue_cert("localhost", not_before=in_days(1), not_after=in_days(9))),
            "not yet valid",
            "timedatectl",
            id="not yet valid",
        ),
        pytest.param(
            lambda ca: tls(ca.issue_cert("otp.example")), "Hostname mismatch", "NXOTP_BASE_URL", id="wrong host"
        ),
        pytest.param(
            lambda _: tls(trustme.CA().issue_cert("localhost")), "local issuer", "SSL_CERT_FILE", id="unknown authority"
        ),
        pytest.param(self_signed, "self-signed certificate", "SSL_CERT_FILE", id="self-signed"),
    ],
)
async def test_a_bad_certificate(
    context: Callable[[trustme.CA], ssl.SSLContext], found: str, advice: str, authority: trustme.CA, set_: Set
) -> None:
    async with web_server(lambda _: web.Response(), context(authority)) as address:
        set_(BASE_URL=f"https://{address}")
        findings = await examine()
    assert statuses(findings) == "ofss"
    finding = one(findings, Check.CONNECTION)
    assert finding.found.startswith("the certificate was refused: ")
    assert found in finding.found
    assert advice in finding.advice


async def test_a_server_without_tls(sandbox: Sandbox, set_: Set) -> None:
    set_(BASE_URL=sandbox.url.replace("http:", "https:"))
    findings = await examine()
    assert statuses(findings) == "ofss"
    assert "does not use TLS" in one(findings, Check.CONNECTION).found


# ---------------------------------------------------------------------------------------------- proxies


def tunnel_to(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Do what a proxy does when it is asked to CONNECT to a port of this machine's."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("localhost", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    return tunnel


async def test_tls_is_examined_through_a_proxy_too(authority: trustme.CA, set_: Set) -> None:
    async with (
        web_server(lambda _: web.Response(), tls(authority.issue_cert("localhost"))) as address,
        bare_server(tunnel_to(int(address.rpartition(":")[2]))) as proxy,
    ):
        set_(BASE_URL=f"https://{address}", PROXY=f"http://user:hunter2@{proxy}")
        findings = await examine()
    assert statuses(findings) == "oooo"
    assert one(findings, Check.DNS).found.startswith("127.0.0.1 ")
    assert one(findings, Check.CONNECTION).found.startswith(f"the proxy {proxy} in ")
    assert "issued by trustme" in one(findings, Check.CONNECTION).found


@pytest.mark.parametrize(
    ("answer", "found", "advice"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP 407", "user:password@host"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered HTTP 502", "NXOTP_BASE_URL"),
        (b"", "ServerDisconnectedError", "NXOTP_PROXY"),
    ],
    ids=["407", "502", "nothing"],
)
async def test_a_proxy_that_does_not_lead_on(answer: bytes, found: str, advice: str, set_: Set) -> None:
    async with bare_server(saying(answer)) as address:
        set_(BASE_URL="https://otp.example", PROXY=f"http://user:hunter2@{address}")
        findings = await examine()
    assert statuses(findings) == "ofss"
    assert found in one(findings, Check.CONNECTION).found
    assert advice in one(findings, Check.CONNECTION).advice
    assert "hunter2" not in str(findings)


async def test_a_proxy_that_demands_a_password_of_a_plain_request(set_: Set) -> None:
    async with bare_server(saying(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as address:
        set_(BASE_URL="http://127.0.0.1:9", PROXY=f"http://{address}")
        findings = await examine()
    assert statuses(findings) == "oofs"
    assert "HTTP 407" in one(findings, Check.HTTP).found


async def test_a_proxy_that_is_not_there(set_: Set) -> None:
    port = closed_port()
    set_(BASE_URL="https://otp.example", PROXY=f"http://127.0.0.1:{port}")
    findings = await examine()
    assert statuses(findings) == "ofss"
    assert one(findings, Check.CONNECTION).found == f"no connection to the proxy 127.0.0.1:{port}: Connection refused"
    assert one(findings, Check.CONNECTION).advice.startswith("check NXOTP_PROXY")


# ---------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize(
    ("status", "expected", "found"),
    [
        (200, Status.OK, "the server answers"),
        (302, Status.OK, "redirect was not followed"),
        (404, Status.OK, "the server answers"),
        (429, Status.OK, "the server answers"),
        (503, Status.WARNING, "answers, but with an error"),
    ],
)
async def test_any_answer_shows_that_the_server_is_there(status: int, expected: Status, found: str, set_: Set) -> None:
    paths: list[str] = []

    def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"}, body=b"x" * 1_000_000)

    async with web_server(answer) as address:
        set_(BASE_URL=f"http://{address}/gateway")
        finding = one(await examine(), Check.HTTP)
    assert finding.status is expected
    assert f"HTTP {status} in " in finding.found
    assert found in finding.found
    assert paths == ["/gateway/"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "not HTTP"),
    ],
    ids=["nothing", "not HTTP", "an endless header"],
)
async def test_what_answers_is_no_web_server(answer: bytes, found: str, set_: Set) -> None:
    async with bare_server(saying(answer)) as address:
        set_(BASE_URL=f"http://{address}")
        findings = await examine()
    assert statuses(findings) == "oofs"
    assert found in one(findings, Check.HTTP).found


async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("serve", [never, drip])
async def test_a_server_that_never_answers(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], set_: Set
) -> None:
    async with bare_server(serve) as address:
        set_(BASE_URL=f"http://{address}")
        findings = await examine(timeout=0.3)
    assert statuses(findings) == "oofs"
    assert one(findings, Check.HTTP).found == "connected, but no answer within 0.3 s"


async def test_cancelled_it_leaves_nothing_behind(set_: Set) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()  # until the connection is closed
        left.set()

    async with bare_server(wait) as address:
        set_(BASE_URL=f"http://{address}")
        task = asyncio.create_task(examine())
        await asked.wait()
        before = asyncio.all_tasks()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left.wait()
        assert asyncio.all_tasks() < before


# ---------------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize(
    ("ahead", "status", "found"),
    [
        (0, Status.OK, "0.5 s behind"),
        (4, Status.OK, "4.5 s behind"),
        (-7, Status.WARNING, "6.5 s ahead of"),
        (30, Status.WARNING, "30.5 s behind"),
        (61, Status.FAILED, "61.5 s behind"),
        (-3600, Status.FAILED, "3599.5 s ahead of"),
    ],
)
async def test_the_clocks_are_compared(ahead: int, status: Status, found: str, clock: FakeClock, set_: Set) -> None:
    date = formatdate(clock.time() + ahead, usegmt=True)
    async with web_server(lambda _: web.Response(headers={"Date": date})) as address:
        set_(BASE_URL=f"http://{address}")
        finding = one(await examine(clock=clock), Check.CLOCK)
    assert finding.status is status
    assert f"{found} the server's, give or take 0.5 s" in finding.found
    assert ("timedatectl" in finding.advice) is (status is not Status.OK)
    assert ("1004" in finding.advice) is (status is Status.FAILED)


async def test_a_slow_answer_makes_the_comparison_less_certain(clock: FakeClock, set_: Set) -> None:
    def answer(_: web.Request) -> web.Response:
        clock.advance(8)
        return web.Response(headers={"Date": formatdate(clock.time(), usegmt=True)})

    async with web_server(answer) as address:
        set_(BASE_URL=f"http://{address}")
        finding = one(await examine(clock=clock), Check.CLOCK)
    assert finding.found == "this machine's clock is 4.5 s behind the server's, give or take 4.5 s"
    assert finding.status is Status.OK


@pytest.mark.parametrize("headers", [{"Date": "yesterday"}, {"Age": "7"}], ids=str)
async def test_without_the_servers_time_the_clocks_are_not_compared(headers: dict[str, str], set_: Set) -> None:
    async with web_server(lambda _: web.Response(headers=headers)) as address:
        set_(BASE_URL=f"http://{address}")
        finding = one(await examine(), Check.CLOCK)
    assert finding.status is Status.WARNING
    assert "cannot be compared" in finding.found


# ---------------------------------------------------------------------------------------------- one real message


async def test_one_message_is_sent_on_request(sandbox: Sandbox, clock: FakeClock, set_: Set) -> None:
    set_(BASE_URL=sandbox.url)
    finding = await send_one("+999 555 0100", clock=clock)
    (message,) = sandbox.messages
    assert re.fullmatch(r"\d{6}", message.content)
    assert finding.status is Status.OK
    assert finding.found.startswith("accepted for 99******00 in ")
    assert finding.found.endswith(str(message.message_id))
    assert message.content not in str(finding)


async def test_each_message_has_a_code_of_its_own(sandbox: Sandbox, clock: FakeClock, set_: Set) -> None:
    set_(BASE_URL=sandbox.url)
    for _ in range(3):
        await send_one("+999 555 0100", clock=clock)
    assert len({message.otp for message in sandbox.messages}) > 1


async def test_a_refusal_comes_with_the_vendors_advice(sandbox: Sandbox, clock: FakeClock, set_: Set) -> None:
    set_(BASE_URL=sandbox.url)
    finding = await send_one("999000009005", clock=clock)
    assert finding.status is Status.FAILED
    assert finding.found == "rejected: code 9005, insufficient account balance"
    assert finding.advice == "recharge the account"
    assert isinstance(finding.error, AccountError)


async def test_what_cannot_be_sent_raises(set_: Set) -> None:
    with pytest.raises(ConfigurationError, match="access_key is missing"):
        await send_one("+999 555 0100")
    set_()
    with pytest.raises(InvalidMessageError, match="country code"):
        await send_one("0123")


@pytest.mark.parametrize(
    ("values", "local"),
    [
        ({"BASE_URL": "http://127.0.0.1:8099"}, True),
        ({"BASE_URL": "http://localhost:8099"}, True),
        ({"BASE_URL": "http://127.0.0.1:8099", "PROXY": "http://proxy.example"}, False),
        ({"BASE_URL": "https://otp.example"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_what_is_local_is_known(values: dict[str, str], local: bool, set_: Set) -> None:
    set_(**values)
    assert is_local() is local


# ---------------------------------------------------------------------------------------------- nothing secret


CANARIES = {
    "ACCESS_KEY": "k3y-c4n4ry",
    "ACCESS_SECRET": "s3cr3t-c4n4ry",
    "APPKEY": "4pp-c4n4ry",
    "DR_WEBHOOK": "https://hooks.example/w3bh00k-c4n4ry",
    "CALLBACK_TOKEN": "t0k3n-c4n4ry-t0k3n",
    "ACCES_SECRET": "typ0-c4n4ry",
}


@pytest.mark.parametrize("spoilt", ["", " ", '"', "\n"], ids=repr)
@pytest.mark.parametrize("proxied", [True, False])
async def test_no_secret_is_in_a_finding_or_a_log(
    spoilt: str,
    proxied: bool,
    sandbox: Sandbox,
    set_: Set,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    set_(BASE_URL=sandbox.url, **{name: f"{value}{spoilt}" for name, value in CANARIES.items()})
    if proxied:
        set_(**CANARIES, PROXY=f"{sandbox.url.replace('//', '//us3r-c4n4ry:p4ss-c4n4ry@')}{spoilt}")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p4ss-c4n4ry@proxy.example")
    findings = await examine()
    assert findings
    assert "c4n4ry" not in f"{findings!r} {caplog.text} {[vars(record) for record in caplog.records]!r}"
