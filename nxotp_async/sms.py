"""The vendor's SMS service, as a fallback for codes that WhatsApp does not deliver."""

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson

from ._version import __version__
from .checks import InvalidValueError, header_text, instance_of, number, optional, text, validate
from .client import OtpClient
from .client_state import ClientState
from .codes import ResponseCode, SmsCode
from .delivery import Delivery
from .errors import ConfigurationError, sensitive_variables
from .messages import OtpMessage
from .protocol import NO_CODE, Reply, outcome_of, read_object, usable_id
from .results import Outcome, SendResult
from .settings import Settings
from .signing import Credentials, sign
from .transports import Answer

__all__ = ["SMS_PATH", "SmsFallback", "decode_sms", "encode_sms", "sms_headers"]

SMS_PATH: Final = "/api/sms/mtsend_v2"
"""The path of the service's URL."""
_ACTION: Final = "mtsend"
_BIZ_TYPE: Final = "3"
_CODE: Final = "{code}"
_MAX_TEXT: Final = 1000 - 8 + len(_CODE)  # characters; a code has 8 at most
_MESSAGE_ID: Final = re.compile(r"[0-9a-zA-Z-]{10,50}")
_CODE_TEXT: Final = re.compile(r"-?[0-9]{1,6}", re.ASCII)


class SmsFallback:
    """Sends the code of a message by SMS: ``Verifier(client, fallback=SmsFallback(client), ...)``.

    It has the account, the connections, the times and the retries of a client, and permits, retry quota and rate limit
    of its own. What may have been accepted is never sent again by itself. It need not be closed; the client does.

    Args:
        client: The client.
        appkey: The key of the SMS application. Default: the client's.
        text: The text of the message, in which ``{code}`` stands for the code.
        source_address: The sender that the recipient sees, if the country allows one.
        rate_limit: Messages a second, for each event loop. Default: no limit.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    @sensitive_variables
    def __init__(
        self,
        client: OtpClient,
        *,
        appkey: str | None = None,
        text: str = "Your code is {code}",
        source_address: str | None = None,
        rate_limit: float | None = None,
    ) -> None:
        validate("client", instance_of(OtpClient), client, ConfigurationError)
        key = validate("appkey", optional(header_text), appkey, ConfigurationError)
        validate("rate_limit", optional(number(at_least=0.001)), rate_limit, ConfigurationError)
        source = validate("source_address", optional(header_text), source_address, ConfigurationError)
        template = validate("text", _parse_text, text, ConfigurationError)
        settings = client.settings
        retry = attrs.evolve(
            settings.retry, transient_codes={*settings.retry.transient_codes, SmsCode.RATE_LIMIT.value}
        )
        settings = attrs.evolve(settings, appkey=key or settings.appkey, rate_limit=rate_limit, retry=retry)
        self._client = _SmsClient(settings, client, template, source)

    def __repr__(self) -> str:
        return f"SmsFallback({self._client!r})"

    async def __call__(self, message: OtpMessage) -> SendResult:
        """Send the code of a message, and return when the vendor has accepted it. It raises as `OtpClient.send` does.

        Args:
            message: The message. Its language has no effect, nor has what is of WhatsApp alone.
        """
        return await self._client.send(message)


def _parse_text(value: object) -> str:
    template = text(value)
    if template.count(_CODE) != 1 or len(template) > _MAX_TEXT:
        raise InvalidValueError(f"must contain {_CODE} once, and {_MAX_TEXT} characters at most")
    return template


class _SmsClient(OtpClient):
    """A client of the SMS service."""

    def __init__(self, settings: Settings, client: OtpClient, template: str, source_address: str | None) -> None:
        self._settings = settings
        self._state = ClientState(client.state.transport, settings.clock, settings.max_concurrency, settings.rate_limit)
        self._template = template
        self._source_address = source_address

    @property
    def url(self) -> str:
        """The URL that messages are posted to."""
        return self._settings.base_url + SMS_PATH

    async def _attempt(self, message: OtpMessage) -> SendResult:
        body = encode_sms(message, self._settings.appkey, self._template, self._source_address)
        return await _SmsDelivery(message, self._settings, self._state, self.url, body).run()


class _SmsDelivery(Delivery):
    """The attempts for one SMS."""

    __slots__ = ("_url",)

    def __init__(self, message: OtpMessage, settings: Settings, state: ClientState, url: str, body: bytes) -> None:
        super().__init__(message, settings, state, state.of_running_loop())
        self._url = url
        self._body = body

    def _request(self, ts: int) -> tuple[str, Mapping[str, str]]:
        return self._url, sms_headers(self._body, ts=ts, credentials=self._settings.credentials)

    def _decode(self, answer: Answer, hide: tuple[str, ...]) -> Outcome:
        return decode_sms(answer.status, answer.headers, answer.body, hide=hide)


# ---------------------------------------------------------------------------------------------- the protocol


def encode_sms(message: OtpMessage, appkey: str, template: str, source_address: str | None) -> bytes:
    """Return the JSON body of a message.

    Args:
        message: The message.
        appkey: The key of the SMS application.
        template: The text, with ``{code}`` in place of the code.
        source_address: The sender that the recipient sees, or ``None``.
    """
    fields: dict[str, Any] = {
        "appKey": appkey,
        "phone": message.to,
        "content": template.replace(_CODE, message.code),
    }
    if message.cus_message_id is not None and _MESSAGE_ID.fullmatch(message.cus_message_id):
        fields["sysMessageId"] = message.cus_message_id
    if source_address is not None:
        fields["sourceAddress"] = source_address
    return orjson.dumps(fields)


def sms_headers(body: bytes, *, ts: int, credentials: Credentials) -> dict[str, str]:
    """Return the headers of one attempt, freshly signed.

    Args:
        body: The bytes that will be sent.
        ts: Milliseconds since the epoch.
        credentials: The account's keys.
    """
    return {
        "accessKey": credentials.access_key,
        "ts": str(ts),
        "sign": sign(body, ts=ts, credentials=credentials, action=_ACTION, biz_type=_BIZ_TYPE),
        "bizType": _BIZ_TYPE,
        "action": _ACTION,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"nxotp_async/{__version__}",
    }


def decode_sms(status: int, headers: Mapping[str, str], body: bytes, *, hide: tuple[str, ...] = ()) -> Outcome:
    """Turn an answer of the SMS service into a message id or an error. Never raises.

    The arguments, and what is returned, are those of the decoder for WhatsApp. This service writes codes as texts.
    """
    return outcome_of(status, headers, body, _read(body), hide)


def _read(body: bytes) -> Reply:
    answer = read_object(body)
    if isinstance(answer, Reply):
        return answer
    message_id = usable_id(answer.get("messageid"))
    said, result = answer.get("code"), answer.get("result")
    written = str(said) if type(said) in (int, str) else ""
    if not _CODE_TEXT.fullmatch(written):
        return Reply(None, message_id, problem=NO_CODE)
    code = int(written)
    problem = "" if code or message_id else "code 0, but without a message id"
    known = SmsCode.find(code) or ResponseCode.find(code)
    return Reply(code, message_id, result if isinstance(result, str) else "", problem=problem, known=known)
