"""The client's settings. Each is declared once, by its line in `Settings`; arguments, variables and views follow."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import attrs

from .checks import InvalidValueError, header_text, instance_of, integer, number, text, validate
from .clocks import Clock
from .errors import ConfigurationError, sensitive_variables
from .languages import Language
from .phone_numbers import mask_number, parse_number, parse_region
from .protocol import OTP_PATH, fixed_headers
from .retry import RetryPolicy
from .signing import SANDBOX_CREDENTIALS, Credentials
from .transports import Transport
from .urls import is_http_url, mask_proxy, mask_url, parse_host, parse_url, plain_http_host

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from .pacing import SharedRate

__all__ = [
    "CALLBACK_TOKEN",
    "DEFAULT_BASE_URL",
    "OUTBOX",
    "SENDERS",
    "SETTINGS",
    "STORES",
    "Setting",
    "Settings",
    "shown_transport",
]

DEFAULT_BASE_URL: Final = "https://api2.nxcloud.com"


@attrs.frozen
class Setting:
    """What is declared of a setting beside its name, its type and its default.

    Attributes:
        check: Makes its value of an argument, or of the text of its variable.
        show: Returns as much of a value as may be seen.
        has_variable: Whether it may be given as an environment variable.
        in_views: Whether `OtpClient.with_options` may change it.
        name: The argument of `OtpClient`, and the attribute of `Settings`.
        is_required: Whether it has no default.
    """

    check: Callable[[object], object]
    show: Callable[[Any], str] = str
    has_variable: bool = True
    in_views: bool = False
    name: str = ""
    is_required: bool = False

    @property
    def variable(self) -> str:
        """The name of its environment variable; empty where it has none."""
        return f"NXOTP_{self.name.upper()}" if self.has_variable else ""

    def parse(self, value: object) -> Any:
        """Return its value, made of an argument or of the text of its variable.

        Raises:
            ConfigurationError: It is wrong; the text names the argument and the variable.
        """
        name = f"{self.name} (or {self.variable})" if self.variable else self.name
        return validate(name, self.check, value, ConfigurationError)


def _base_url(value: object) -> str:
    if not isinstance(value, str) or not is_http_url(value) or not value.isascii() or set(value) & set("?#@\\"):
        raise InvalidValueError(f"must be a plain https URL, {DEFAULT_BASE_URL} for example")
    return value.rstrip("/")


def _session(value: object) -> "ClientSession":
    aiohttp: Any = sys.modules.get("aiohttp")  # whoever has a session has imported it
    session_type: type[ClientSession] | tuple[()] = () if aiohttp is None else aiohttp.ClientSession
    if not isinstance(value, session_type):
        raise InvalidValueError(f"must be a ClientSession, not {type(value).__name__}")
    return value


def _transport(value: object) -> Transport | Literal["aiohttp", "wire"]:
    if value == "aiohttp" or value == "wire":  # noqa: PLR1714 - for type checkers
        return value
    if isinstance(value, str) or not (hasattr(value, "post") and hasattr(value, "aclose")):
        given = repr(value) if isinstance(value, str) else type(value).__name__
        raise InvalidValueError(f"must be 'aiohttp', 'wire' or a Transport, not {given}")
    return value


def shown_transport(transport: object) -> str:
    """Return the name of a transport, or that of its class."""
    return transport if isinstance(transport, str) else type(transport).__name__


def _from_text(check: Callable[[object], float]) -> Callable[[object], float]:
    """Return the check for a number that may also be written as a text, as it is in a variable."""

    def check_either(value: object) -> float:
        if isinstance(value, str):
            try:
                value = int(value) if value.strip().isdigit() else float(value)
            except ValueError:
                raise InvalidValueError("must be a number") from None
        return check(value)

    return check_either


def _rate_limit(value: object) -> "float | SharedRate":
    if isinstance(value, str | int | float):
        return _from_text(number(at_least=0.001))(value)
    from .pacing import SharedRate  # noqa: PLC0415 - not needed for sending

    if not isinstance(value, SharedRate):
        raise InvalidValueError(f"must be a number or a SharedRate, not {type(value).__name__}")
    return value


def _length(secret: str) -> str:
    return f"set, {len(secret)} characters"


@attrs.frozen(kw_only=True, repr=False)  # it would show secrets
class Settings:
    """Every setting of a client, checked. `OtpClient` documents what each means.

    Attributes:
        credentials: The account's keys together.
        url: Where messages are posted to.
        fixed_headers: The headers that are the same in every request.
    """

    access_key: Annotated[str, Setting(header_text, show=_length)]
    access_secret: Annotated[str, Setting(header_text, show=_length)]
    appkey: Annotated[str, Setting(header_text, show=_length)]
    business_phone: Annotated[str | None, Setting(parse_number, show=mask_number, in_views=True)] = None
    default_region: Annotated[str | None, Setting(parse_region, in_views=True)] = None
    base_url: Annotated[str, Setting(_base_url)] = DEFAULT_BASE_URL
    insecure_sandbox_host: Annotated[str | None, Setting(parse_host)] = None
    dr_webhook: Annotated[str | None, Setting(parse_url, show=mask_url, in_views=True)] = None
    language_code: Annotated[Language, Setting(Language.parse, in_views=True)] = Language.EN
    max_concurrency: Annotated[int, Setting(_from_text(integer(at_least=1)))] = 64
    rate_limit: Annotated["float | SharedRate | None", Setting(_rate_limit)] = None
    timeout: Annotated[float, Setting(_from_text(number(above=0)), in_views=True)] = 10.0
    deadline: Annotated[float, Setting(_from_text(number(above=0)), in_views=True)] = 30.0
    retry: Annotated[RetryPolicy, Setting(instance_of(RetryPolicy), has_variable=False, in_views=True)] = RetryPolicy()
    keepalive_timeout: Annotated[float, Setting(_from_text(number(above=0)))] = 15.0
    proxy: Annotated[str | None, Setting(parse_url, show=mask_proxy)] = None
    session: Annotated["ClientSession | None", Setting(_session, has_variable=False)] = None
    transport: Annotated[Transport | Literal["aiohttp", "wire"], Setting(_transport, show=shown_transport)] = "aiohttp"
    clock: Annotated[Clock, Setting(instance_of(Clock), has_variable=False)] = Clock()

    credentials: Credentials = attrs.field(init=False)
    url: str = attrs.field(init=False)
    fixed_headers: Mapping[str, str] = attrs.field(init=False)

    @credentials.default
    def _credentials(self) -> Credentials:
        return Credentials(self.access_key, self.access_secret, self.appkey)

    @url.default
    def _url(self) -> str:
        return self.base_url + OTP_PATH

    @fixed_headers.default
    def _fixed_headers(self) -> Mapping[str, str]:
        return fixed_headers(self.credentials)

    def __attrs_post_init__(self) -> None:
        if self.proxy is not None and self.session is not None:
            raise ConfigurationError("proxy and session exclude one another: set the proxy on the session")
        if self.transport != "aiohttp" and (self.proxy is not None or self.session is not None):
            what = "session" if self.proxy is None else "proxy (or NXOTP_PROXY)"
            raise ConfigurationError(
                f"{what} needs aiohttp: transport (or NXOTP_TRANSPORT) must not be {shown_transport(self.transport)}"
            )
        self._check_plain_http()

    def _check_plain_http(self) -> None:
        host, of_sandbox = plain_http_host(self.base_url), self.credentials == SANDBOX_CREDENTIALS
        if self.insecure_sandbox_host is not None and not of_sandbox:
            raise ConfigurationError(
                "insecure_sandbox_host (or NXOTP_INSECURE_SANDBOX_HOST) must not be set with an account's keys: it is "
                "for the sandbox's own, because over plain http anybody on the way can read keys and codes"
            )
        if host not in (None, self.insecure_sandbox_host):
            raise ConfigurationError(
                "base_url (or NXOTP_BASE_URL) must be https: over plain http anybody on the way can read the codes",
                hint=f"for a sandbox on that host, set NXOTP_INSECURE_SANDBOX_HOST={host}" if of_sandbox else None,
            )

    @classmethod
    @sensitive_variables
    def resolve(cls, arguments: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> "Settings":
        """Take each setting from its argument, else from its ``NXOTP_*`` variable, else its default.

        Args:
            arguments: Values by name. ``None`` is no value, and what is no setting's name is left alone.
            environment: The variables; by default those of this process. An empty one is no value: that is how compose
                files and CI systems leave them.

        Raises:
            ConfigurationError: A setting is missing or wrong. All that are missing are named together.
        """
        environment = os.environ if environment is None else environment
        variables = {name: environment.get(setting.variable) or None for name, setting in SETTINGS.items()}
        given = {name: value if arguments.get(name) is None else arguments[name] for name, value in variables.items()}
        missing = [setting for setting in SETTINGS.values() if setting.is_required and not given[setting.name]]
        if missing:
            raise ConfigurationError(
                "; ".join(f"{one.name} is missing: pass {one.name}=... or set {one.variable}" for one in missing),
                hint="no account yet? nxotp_async.sandbox runs without one",
            )
        return cls(**{name: SETTINGS[name].parse(value) for name, value in given.items() if value is not None})

    def new_transport(self) -> Transport:
        """Return the transport that they name.

        Raises:
            ConfigurationError: What it needs is not installed.
        """
        if not isinstance(self.transport, str):
            return self.transport
        keepalive_timeout, monotonic = self.keepalive_timeout, self.clock.monotonic
        if self.transport == "wire":
            try:
                from .transports.wire import WireTransport  # noqa: PLC0415 - an extra
            except ModuleNotFoundError:
                raise ConfigurationError(
                    "transport (or NXOTP_TRANSPORT) is wire, which needs the httptools package",
                    hint='pip install "nxotp_async[fast]"',
                ) from None
            return WireTransport(keepalive_timeout=keepalive_timeout, monotonic=monotonic)
        from .transports.sessions import SessionPool  # noqa: PLC0415 - aiohttp takes its time to load

        return SessionPool(
            max_connections=self.max_concurrency,
            proxy=self.proxy,
            session=self.session,
            keepalive_timeout=keepalive_timeout,
            monotonic=monotonic,
        )

    def replace(self, arguments: Mapping[str, Any]) -> "Settings":
        """Return these settings with those that a view may change replaced by what is given for them.

        Args:
            arguments: Values by name. ``None`` is no value, and what is no such setting's name is left alone.

        Raises:
            ConfigurationError: A value is wrong.
        """
        changes = {
            name: setting.parse(value)
            for name, setting in SETTINGS.items()
            if setting.in_views and (value := arguments.get(name)) is not None
        }
        return attrs.evolve(self, **changes)


def _declared(field: Any) -> Setting:
    """Return what is declared of an attribute of `Settings`."""
    (setting,) = field.type.__metadata__
    declared: Setting = attrs.evolve(setting, name=field.name, is_required=field.default is attrs.NOTHING)
    return declared


SETTINGS: Final[Mapping[str, Setting]] = {
    field.name: _declared(field) for field in attrs.fields(Settings) if field.init
}
"""Every setting by its name."""
CALLBACK_TOKEN: Final = Setting(text, show=_length, name="callback_token")
"""No setting of the client: the command line's receiver of callbacks has it, and reads it from its variable."""
SENDERS: Final = Setting(text, name="senders")
"""No setting of the client: the command line's bulk runs read the file that it names."""
STORES: Final = tuple(Setting(text, show=_length, name=name) for name in ("store", "store_listen"))
"""No settings of the client: `nxotp_async.stores.store_from_url` reads them. Their URLs may hold passwords."""
OUTBOX: Final = tuple(
    Setting(text, show=_length, name=name) for name in ("database_url", "outbox_keys", "outbox_listen")
)
"""No settings of the client: `nxotp_async.fleet.Outbox` reads them."""
