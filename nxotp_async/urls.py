"""URLs: checked, taken apart and masked."""

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from yarl import URL

from .checks import InvalidValueError, text
from .errors import InvalidReason

__all__ = [
    "host_and_port",
    "is_http_url",
    "is_loopback",
    "listening_url",
    "mask_proxy",
    "mask_url",
    "parse_host",
    "parse_url",
    "plain_http_host",
]

_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


def is_http_url(url: str) -> bool:
    """Return whether the text is an absolute http or https URL that the HTTP client can parse."""
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = URL(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.host) and parts.port != 0


def parse_url(value: object) -> str:
    """Check for an absolute http or https URL.

    Raises:
        InvalidValueError: The value is no such URL.
    """
    if isinstance(value, str) and is_http_url(value):
        return value
    problem = "must be an absolute http or https URL"
    raise InvalidValueError(problem, "https://example.com/a for example", InvalidReason.INVALID_URL)


def parse_host(value: object) -> str:
    """Check for the name or the address of a host, without a scheme and without a port.

    Raises:
        InvalidValueError: The value is none.
    """
    host = text(value).lower()
    if not _HOST.fullmatch(host):
        try:
            ip_address(host)
        except ValueError:
            problem = "must be the name of a host without a scheme and a port"
            raise InvalidValueError(problem, "sandbox for example") from None
    return host


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, judging by its name or address, without the DNS."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def plain_http_host(url: str) -> str | None:
    """Return the host that a URL leads to over plain http, unless that is loopback or it is no such URL."""
    parts = URL(url) if is_http_url(url) else URL()
    return parts.host if parts.scheme == "http" and not is_loopback(parts.host or "") else None


def host_and_port(host: str, port: int) -> str:
    """Return both in the notation of a URL, in which an IPv6 address has brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening_url(host: str, port: int) -> str:
    """Return the URL at which this machine itself reaches what listens there.

    That is loopback for what listens on all addresses: ``0.0.0.0`` and ``::`` are no addresses to connect to.
    """
    with suppress(ValueError):  # a name
        if (address := ip_address(host)).is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://{host_and_port(host, port)}"


def mask_url(url: str) -> str:
    """Return a valid URL without the parts that may be secret: user, password, path, query and fragment."""
    parts = URL(url)
    rest = parts.raw_path_qs.strip("/") or parts.raw_fragment
    return f"{parts.origin()}/..." if rest else str(parts.origin())


def mask_proxy(url: str) -> str:
    """Return a proxy's valid URL as `mask_url` does, and say whether it has a user name."""
    return f"{mask_url(url)}, with a user name" if URL(url).user else mask_url(url)
