"""Checks of the network: the name, the connection, an answer, and the server's clock."""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import attrs
from yarl import URL

from .._version import __version__
from ..clock_skew import TIMESTAMP_WINDOW, ClockOffset
from ..clocks import Clock
from ..protocol import OTP_PATH
from ..settings import Settings
from ..urls import host_and_port
from .findings import Check, Finding, Status, milliseconds, printable

__all__ = ["examine_network"]


async def examine_network(settings: Settings, timeout: float, context: ssl.SSLContext, clock: Clock) -> list[Finding]:
    """Connect as for sending, up to the first failure. ``timeout`` is the seconds for each step. Nothing is posted."""
    name = await _look_up(settings, timeout, clock)
    if name.status is not Status.OK:
        return [name]
    connector = _Connector(context, clock)
    limits = aiohttp.ClientTimeout(total=2 * timeout, connect=timeout, sock_read=timeout)
    async with aiohttp.ClientSession(
        connector=connector, timeout=limits, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        answer = await _ask(session, settings)
        answered_at = clock.time()
    made = connector.made
    if made is None:
        return [name, _no_connection(answer, settings, timeout)]
    connection = _connection(made, settings)
    if isinstance(answer, Exception):
        return [name, connection, _no_answer(answer, timeout)]
    if answer.status == 407:
        return [name, connection, Finding(Check.HTTP, Status.FAILED, *_REFUSED_BY_PROXY)]
    took = answered_at - made.at
    offset = None
    if "Age" not in answer.headers:  # a cache repeats the time at which it got the answer
        offset = ClockOffset.measure(answer.headers, sent=made.at, elapsed=took)
    return [name, connection, _answer(answer.status, took), _compare_clocks(offset)]


# ---------------------------------------------------------------------------------------------- the name


async def _look_up(settings: Settings, timeout: float, clock: Clock) -> Finding:
    """Look up the host to connect to."""
    host, _ = _peer(settings)
    resolver = aiohttp.DefaultResolver()  # the one that the client's sessions use
    began = clock.monotonic()
    try:
        async with asyncio.timeout(timeout):
            answers = await resolver.resolve(host, family=socket.AF_UNSPEC)
    except TimeoutError:
        found = f"looking up {host} took more than {timeout:g} s"
        return Finding(Check.DNS, Status.FAILED, found, _remedy(settings))
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is not a valid name"
        return Finding(Check.DNS, Status.FAILED, f"{host} was not found: {reason}", _remedy(settings))
    finally:
        await resolver.close()
    addresses = dict.fromkeys(answer["host"] for answer in answers)
    if host in addresses:
        return Finding(Check.DNS, Status.OK, f"{host} is an IP address")
    found = f"{host} resolves to {', '.join(addresses)}, in {milliseconds(clock.monotonic() - began)}"
    return Finding(Check.DNS, Status.OK, found)


def _peer(settings: Settings) -> tuple[str, str]:
    """Return the host to connect to, the proxy or the API itself, and its description with the port."""
    url = URL(settings.proxy or settings.url)
    host = url.host or ""
    address = host_and_port(host, url.port or 0)
    return host, f"the proxy {address}" if settings.proxy else address


def _remedy(settings: Settings) -> str:
    """Return what to do if the peer cannot be reached."""
    if settings.proxy:
        return "check NXOTP_PROXY and its port, and this machine's network and DNS"
    if settings.url.startswith("http:"):
        return "start the server ('nxotp sandbox' for example), or check NXOTP_BASE_URL and its port"
    return (
        "check NXOTP_BASE_URL, and this machine's network and DNS; if there is no way around a proxy, set NXOTP_PROXY"
    )


# ---------------------------------------------------------------------------------------------- the connection


@attrs.frozen
class _Connection:
    """An established connection."""

    at: float  # when it was established, in seconds since the epoch
    took: float  # seconds
    tls: str | None = None  # the version
    certificate: Mapping[str, Any] = {}  # the server's, as `ssl.SSLObject.getpeercert` returns it


class _Connector(aiohttp.TCPConnector):
    """Remembers the connection, so that a failure to connect can be distinguished from a later one."""

    made: _Connection | None = None

    def __init__(self, context: ssl.SSLContext, clock: Clock) -> None:
        super().__init__(ssl=context)
        self._clock = clock

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:  # noqa: ANN401 - passed on
        began = self._clock.monotonic()
        connection = await super().connect(*args, **options)
        took = self._clock.monotonic() - began
        tls = connection.transport and connection.transport.get_extra_info("ssl_object")
        secured = (tls.version(), tls.getpeercert()) if tls else ()
        self.made = _Connection(self._clock.time(), took, *secured)
        return connection


_EXPIRES_SOON: Final = 14  # days


def _connection(made: _Connection, settings: Settings) -> Finding:
    found = f"{_peer(settings)[1]} in {milliseconds(made.took)}"
    if made.tls is None:
        return Finding(Check.CONNECTION, Status.OK, f"{found}, without TLS, which is allowed for a sandbox only")
    issuer = dict(pair for part in made.certificate["issuer"] for pair in part)
    days = int((ssl.cert_time_to_seconds(made.certificate["notAfter"]) - made.at) // 86_400)
    name = printable(issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority")
    found = f"{found}, {made.tls}; the certificate was issued by {name}, and expires in {days} days"
    if days < _EXPIRES_SOON:
        advice = "inform the server's operator: nothing can be sent after the certificate has expired"
        return Finding(Check.CONNECTION, Status.WARNING, found, advice)
    return Finding(Check.CONNECTION, Status.OK, found)


_REFUSED_BY_PROXY: Final = (
    "the proxy requires a user name and a password, or rejected those it was given (HTTP 407)",
    "put them into NXOTP_PROXY: http://user:password@host:port, with special characters percent-encoded",
)


def _no_connection(error: object, settings: Settings, timeout: float) -> Finding:
    """Return why there is no connection. The errors' own texts are not used: they could contain a proxy's password."""
    peer, advice = _peer(settings)[1], _remedy(settings)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            found = f"the certificate was refused: {getattr(cause, 'verify_message', 'it is not for this host')}"
            advice = _CERTIFICATE_ADVICE.get(getattr(cause, "verify_code", 0), _UNKNOWN_AUTHORITY)
        case aiohttp.ClientSSLError():
            found = f"{peer} does not use TLS, or not in a way that Python supports"
            advice = "check NXOTP_BASE_URL, in particular its port; a firewall may interfere with TLS, too"
        case aiohttp.ClientHttpProxyError(status=407):
            found, advice = _REFUSED_BY_PROXY
        case aiohttp.ClientHttpProxyError(status=status):
            found = f"{peer} answered HTTP {status} when asked to connect to NXOTP_BASE_URL"
            advice = "check NXOTP_BASE_URL, and whether the proxy allows it"
        case TimeoutError():
            found = f"no connection to {peer} within {timeout:g} s; a firewall may drop the packets"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))):
            found = f"no connection to {peer}: {os.strerror(number)}"
        case _:
            found = f"no connection to {peer}: {type(error).__name__}"
    return Finding(Check.CONNECTION, Status.FAILED, found, advice)


_WRONG_CLOCK: Final = (
    "set this machine's clock if it is wrong: timedatectl set-ntp true; otherwise inform the server's operator"
)
_WRONG_HOST: Final = (
    "check NXOTP_BASE_URL; another server may answer in its place, that of a captive portal for example"
)
_UNKNOWN_AUTHORITY: Final = (
    "if the network inspects TLS, set SSL_CERT_FILE to a file with its authority's certificate; otherwise install or "
    "update the package ca-certificates"
)
_CERTIFICATE_ADVICE: Final = {  # by OpenSSL's X509_V_ERR_ codes
    9: _WRONG_CLOCK,  # not yet valid
    10: _WRONG_CLOCK,  # expired
    62: _WRONG_HOST,
    64: _WRONG_HOST,  # the same for an address
}


# ---------------------------------------------------------------------------------------------- the answer


async def _ask(session: aiohttp.ClientSession, settings: Settings) -> aiohttp.ClientResponse | Exception:
    """GET the root of the base URL, and return the answer, whatever its status, without its body; or the error."""
    headers = {"User-Agent": f"nxotp_async/{__version__}", "Cache-Control": "no-cache"}
    root = settings.url.removesuffix(OTP_PATH) + "/"
    try:
        async with session.get(root, headers=headers, allow_redirects=False, proxy=settings.proxy) as response:
            return response
    except Exception as error:
        return error


def _no_answer(error: Exception, timeout: float) -> Finding:
    match error:
        case TimeoutError():
            found = f"connected, but no answer within {timeout:g} s"
            advice = "try a longer timeout; if that does not help, the server or a firewall before it does not respond"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            found = "connected, but the connection was closed without an answer"
            advice = "check NXOTP_BASE_URL, its port, and whether it is http or https; a firewall may interfere, too"
        case _:
            found = f"connected, but the answer is not HTTP ({type(error).__name__})"
            advice = "check NXOTP_BASE_URL, in particular its port"
    return Finding(Check.HTTP, Status.FAILED, found, advice)


def _answer(status: int, took: float) -> Finding:
    found = f"HTTP {status} in {milliseconds(took)}: the server answers"
    if status >= 500:
        advice = "this was not the OTP endpoint, so that sending may work; if it fails, too, try again later"
        return Finding(Check.HTTP, Status.WARNING, f"{found}, but with an error", advice)
    return Finding(Check.HTTP, Status.OK, f"{found}; its redirect was not followed" if 300 <= status < 400 else found)


# ---------------------------------------------------------------------------------------------- the clock


_TOLERATED: Final = 5.0  # seconds; the difference of clocks that NTP synchronises is far smaller


def _compare_clocks(offset: ClockOffset | None) -> Finding:
    if offset is None:
        return Finding(
            Check.CLOCK,
            Status.WARNING,
            "the answer does not contain the server's current time, so that the clocks cannot be compared",
            f"make sure that this machine's clock is right: the vendor allows a difference of {TIMESTAMP_WINDOW:g} s",
        )
    found = (
        f"this machine's clock is {abs(offset.seconds):.1f} s {'behind' if offset.seconds > 0 else 'ahead of'} the "
        f"server's, give or take {offset.uncertainty:.1f} s"
    )
    if abs(offset.seconds) + offset.uncertainty > TIMESTAMP_WINDOW:
        advice = (
            f"set it: timedatectl set-ntp true. The vendor allows {TIMESTAMP_WINDOW:g} s (code 1004); the client "
            "corrects its timestamps after the first refusal, but certificates and the expiry of codes depend on the "
            "clock, too"
        )
        return Finding(Check.CLOCK, Status.FAILED, found, advice)
    if abs(offset.seconds) - offset.uncertainty > _TOLERATED:
        advice = "set it before the difference grows: timedatectl set-ntp true"
        return Finding(Check.CLOCK, Status.WARNING, found, advice)
    return Finding(Check.CLOCK, Status.OK, found)
