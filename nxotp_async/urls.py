"""URLs: checked, taken apart and masked."""

from ipaddress import ip_address

from yarl import URL

from .checks import InvalidValueError
from .errors import InvalidReason

__all__ = ["host_and_port", "is_http_url", "is_loopback", "mask_proxy", "mask_url", "parse_url"]


def is_http_url(text: str) -> bool:
    """Return whether the text is an absolute http or https URL that the HTTP client can parse."""
    if not text.isprintable() or " " in text:
        return False
    try:
        url = URL(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and url.port != 0


def parse_url(value: object) -> str:
    """Check for an absolute http or https URL.

    Raises:
        InvalidValueError: The value is no such URL.
    """
    if isinstance(value, str) and is_http_url(value):
        return value
    problem = "must be an absolute http or https URL"
    raise InvalidValueError(problem, "https://example.com/a for example", InvalidReason.INVALID_URL)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, judging by its name or address, without the DNS."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_and_port(host: str, port: int) -> str:
    """Return both in the notation of a URL, in which an IPv6 address has brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def mask_url(url: str) -> str:
    """Return a valid URL without the parts that may be secret: user, password, path, query and fragment."""
    parts = URL(url)
    rest = parts.raw_path_qs.strip("/") or parts.raw_fragment
    return f"{parts.origin()}/..." if rest else str(parts.origin())


def mask_proxy(url: str) -> str:
    """Return a proxy's valid URL as `mask_url` does, and say whether it has a user name."""
    return f"{mask_url(url)}, with a user name" if URL(url).user else mask_url(url)
