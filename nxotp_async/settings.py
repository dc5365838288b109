"""The client's settings: arguments, the environment variables behind them, defaults and checks."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import attrs

from .clocks import Clock
from .errors import ConfigurationError, sensitive_variables
from .languages import Language
from .messages import parse_url
from .phone_numbers import mask_number, parse_number
from .protocol import OTP_PATH
from .retry import RetryPolicy
from .signing import Credentials
from .urls import is_loopback

__all__ = ["DEFAULT_BASE_URL", "Settings"]

DEFAULT_BASE_URL: Final = "https://api2.nxcloud.com"


@attrs.frozen(kw_only=True)
class Settings:
    """Every setting of a client, checked. What each means is told by `OtpClient`."""

    credentials: Credentials
    url: str
    business_phone: str | None = attrs.field(repr=lambda value: repr(value and mask_number(value)))
    dr_webhook: str | None = attrs.field(repr=False)
    language_code: Language
    max_concurrency: int
    rate_limit: float | None
    timeout: float
    deadline: float
    retry: RetryPolicy
    keepalive_timeout: float
    proxy: str | None = attrs.field(repr=False)  # may hold a password

    @classmethod
    @sensitive_variables
    def resolve(cls, arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> "Settings":
        """Take each setting from its argument, else from its ``NXOTP_*`` variable, else its default.

        Raises:
            ConfigurationError: A setting is missing or wrong. All that are missing are named together.
        """
        given = {name: _given(name, arguments, environment) for name in (*_REQUIRED, *_PARSERS)}
        missing = [name for name in _REQUIRED if not given[name]]
        if missing:
            raise ConfigurationError(
                "; ".join(f"{name} is missing: pass {name}=... or set {_variable(name)}" for name in missing),
                hint="no account yet? nxotp_async.sandbox runs without one",
            )
        values = {name: _parse(name, given[name]) for name in _REQUIRED} | {
            name: _DEFAULTS[name] if given[name] is None else _parse(name, given[name]) for name in _PARSERS
        }
        _check_seams(arguments, values["proxy"])
        return cls(
            credentials=Credentials(*(values.pop(name) for name in _REQUIRED)),
            url=values.pop("base_url") + OTP_PATH,
            **values,
        )

    def adapted(self, arguments: Mapping[str, Any]) -> "Settings":
        """Return these settings with those of the arguments that are not ``None`` put in their place.

        Raises:
            ConfigurationError: A value is wrong.
        """
        changes = {name: _parse(name, value) for name, value in arguments.items() if value is not None}
        return attrs.evolve(self, **changes)


def _variable(name: str) -> str:
    return f"NXOTP_{name.upper()}"


def _given(name: str, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    value = arguments.get(name)
    if name in _WITHOUT_VARIABLE:
        return value
    # An empty variable is an unset one: that is how compose files and CI systems leave them.
    return (environment.get(_variable(name)) or None) if value is None else value


def _parse(name: str, value: Any) -> Any:
    parse = _PARSERS.get(name, _header_text)
    try:
        return parse(value)
    except (ValueError, TypeError, OverflowError) as error:
        source = name if name in _WITHOUT_VARIABLE else f"{name} (or {_variable(name)})"
        raise ConfigurationError(f"{source}: {error}") from None


def _check_seams(arguments: Mapping[str, Any], proxy: object) -> None:
    session, transport, clock = (arguments.get(name) for name in ("session", "transport", "clock"))
    if sum(seam is not None for seam in (proxy, session, transport)) > 1:
        raise ConfigurationError("proxy, session and transport exclude one another: set the proxy on the session")
    if not isinstance(session, aiohttp.ClientSession | None):
        raise ConfigurationError(f"session must be an aiohttp.ClientSession, not {type(session).__name__}")
    if transport is not None and not (hasattr(transport, "post") and hasattr(transport, "aclose")):
        raise ConfigurationError(f"transport must be a Transport, not {type(transport).__name__}")
    if not isinstance(clock, Clock | None):
        raise ConfigurationError(f"clock must be a Clock, not {type(clock).__name__}")


def _header_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be a str, not {type(value).__name__}")
    if not (value.isascii() and value.isprintable()) or value != value.strip():
        raise ValueError("must be printable ASCII without spaces around it; was it copied whole?")
    return value


def _language(value: object) -> Language:
    if not isinstance(value, str):
        raise TypeError(f"must be a str, not {type(value).__name__}")
    return Language.parse(value)


def _base_url(value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or set(value) & set(" ?#@\\"):
        raise ValueError(f"must be a plain https URL, {DEFAULT_BASE_URL} for example")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"must be a plain https URL, {DEFAULT_BASE_URL} for example")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: over plain http anybody on the way can read the codes")
    return value.rstrip("/")


def _number(value: object) -> float:
    if isinstance(value, str):
        try:
            return int(value) if value.strip().isdigit() else float(value)
        except ValueError:
            raise ValueError("must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"must be a number, not {type(value).__name__}")
    return value


def _positive(value: object) -> float:
    number = float(_number(value))
    if not 0 < number < math.inf:
        raise ValueError("must be more than 0, and finite")
    return number


def _rate(value: object) -> float:
    rate = _positive(value)
    if rate < 0.001:
        raise ValueError("must be 0.001 messages a second at least")
    return rate


def _count(value: object) -> int:
    number = _number(value)
    if not isinstance(number, int) or number < 1:
        raise ValueError("must be an integer, 1 at least")
    return number


def _retry_policy(value: object) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise TypeError(f"must be a RetryPolicy, not {type(value).__name__}")
    return value


_WITHOUT_VARIABLE = frozenset({"retry"})
_REQUIRED = ("access_key", "access_secret", "appkey")
_PARSERS: Mapping[str, Callable[[object], object]] = {
    "base_url": _base_url,
    "business_phone": lambda value: parse_number(value, "it"),
    "dr_webhook": lambda value: parse_url(value, "it"),
    "language_code": _language,
    "max_concurrency": _count,
    "rate_limit": _rate,
    "timeout": _positive,
    "deadline": _positive,
    "retry": _retry_policy,
    "keepalive_timeout": _positive,
    "proxy": lambda value: parse_url(value, "it"),
}
_DEFAULTS: Mapping[str, Any] = {
    "base_url": DEFAULT_BASE_URL,
    "business_phone": None,
    "dr_webhook": None,
    "language_code": Language.EN,
    "max_concurrency": 64,
    "rate_limit": None,
    "timeout": 10.0,
    "deadline": 30.0,
    "retry": RetryPolicy(),
    "keepalive_timeout": 15.0,
    "proxy": None,
}
