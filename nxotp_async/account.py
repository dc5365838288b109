"""The account at the vendor, looked at: balance, sending numbers, templates.

The vendor's pages about these are of different years, and do not agree in all. So nearly every field may be absent, in
another notation or of another type, and is then empty, ``None`` or ``UNKNOWN``; ``raw`` is the vendor's own answer.
Nothing that is sent depends on it.
"""

import asyncio
import math
import re
from collections.abc import Coroutine, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from ._version import __version__
from .codes import ResponseCode
from .errors import (
    AccountError,
    ApiError,
    NxOtpError,
    OutcomeUnknownError,
    TransientApiError,
    TransportError,
    sensitive_variables,
    without_frames,
)
from .phone_numbers import mask_number
from .protocol import OTP_PATH, redact
from .signing import sign

if TYPE_CHECKING:
    from .client_state import ClientState
    from .settings import Settings

__all__ = ["Account", "AccountOverview", "Balance", "Quality", "SendingNumber", "Template"]

BALANCE_PATH: Final = "/api/customer/getBalance"
NUMBERS_PATH: Final = "/api/wa/getPhone"
TEMPLATES_PATH: Final = "/api/wa/getTemplate"
_MAX_PAGES: Final = 50  # of templates, twenty each
_FURTHER_CODES: Final[Mapping[int, tuple[type[ApiError], str]]] = {  # those of the balance's page
    211: (TransientApiError, "asked too often"),
    1100: (AccountError, "account unavailable"),
    1102: (AccountError, "balance insufficient"),
}


class Quality(StrEnum):
    """WhatsApp's rating of a sending number."""

    GREEN = "GREEN"
    YELLOW = "YELLOW"
    RED = "RED"
    UNKNOWN = "UNKNOWN"
    """Not rated, or something else than the vendor's pages say."""


_hidden: Any = attrs.field(factory=dict, repr=False, eq=False)


@attrs.frozen
class Balance:
    """What the account has left.

    Attributes:
        currency: ``CNY`` for example; empty if it was not told.
        amount: The money in the account.
        credit: The credit beside it.
        raw: The vendor's own answer.
    """

    currency: str
    amount: Decimal
    credit: Decimal
    raw: Mapping[str, Any] = _hidden

    @property
    def available(self) -> Decimal:
        """What can be spent: amount and credit."""
        return self.amount + self.credit


@attrs.frozen
class SendingNumber:
    """A number that messages can be sent by.

    Attributes:
        number: Its digits.
        quality: WhatsApp's rating.
        name: The name that recipients see; empty if it was not told.
        name_status: Whether WhatsApp has approved the name.
        status: ``CONNECTED`` for example.
        daily_limit: The recipients in 24 hours that WhatsApp allows, of all numbers of a business together; infinite
            where there is no limit, ``None`` if it was not told.
        raw: The vendor's own answer.
    """

    number: str = attrs.field(repr=mask_number)
    quality: Quality
    name: str
    name_status: str
    status: str
    daily_limit: float | None
    raw: Mapping[str, Any] = _hidden


@attrs.frozen
class Template:
    """A template of messages.

    Attributes:
        id: The vendor's id.
        name: Its name.
        language: Its language, as ``language_code`` of a message.
        category: ``AUTHENTICATION`` for example.
        status: ``APPROVED`` for example.
        rejected_reason: Why WhatsApp has rejected it; empty otherwise.
        raw: The vendor's own answer.
    """

    id: str
    name: str
    language: str
    category: str
    status: str
    rejected_reason: str
    raw: Mapping[str, Any] = _hidden

    @property
    def is_approved(self) -> bool:
        """Whether messages can be sent with it."""
        return self.status == "APPROVED"


@attrs.frozen
class AccountOverview:
    """All there is to know of an account. What could not be learnt is the error, and so says why.

    Attributes:
        balance: As of `Account.balance`.
        numbers: As of `Account.numbers`.
        templates: As of `Account.templates`.
    """

    balance: Balance | NxOtpError
    numbers: list[SendingNumber] | NxOtpError
    templates: list[Template] | NxOtpError

    @property
    def errors(self) -> list[NxOtpError]:
        """What could not be learnt, and why."""
        return [one for one in (self.balance, self.numbers, self.templates) if isinstance(one, NxOtpError)]


class Account:
    """The account of a client; see `OtpClient.account`. Its methods send nothing to anybody, and ask once.

    All but `overview` raise:
        ApiError: The vendor said no.
        TransportError: There was no answer, or none that could be understood.
    """

    def __init__(self, settings: "Settings", state: "ClientState") -> None:
        self._settings = settings
        self._state = state

    async def balance(self) -> Balance:
        """Return what the account has left."""
        data = _object(await self._ask(BALANCE_PATH, "getBalance", biz_type="3"))
        amount, credit = _decimal(data.get("amount_cus")), _decimal(data.get("credit_cus"))
        if amount is None:
            raise TransportError("the answer has no balance that could be understood")
        return Balance(_text(data, "currency"), amount, Decimal(0) if credit is None else credit, data)

    async def numbers(self) -> list[SendingNumber]:
        """Return the numbers that are bound to the application."""
        data = await self._ask(NUMBERS_PATH, "getPhone", self._fields())
        return [_number_of(key, entry) for key, entry in _entries(data)]

    async def templates(self, business_phone: str | None = None) -> list[Template]:
        """Return the templates, all pages of them.

        Args:
            business_phone: The digits of the number that they belong to. Default: the client's, or else the first one
                of `numbers`.
        """
        phone = business_phone or self._settings.business_phone
        if phone is None:
            phone = next((one.number for one in await self.numbers()), "")
        fields, templates = {**self._fields(), "business_phone": phone}, []
        for _ in range(_MAX_PAGES):
            data = await self._ask(TEMPLATES_PATH, "getTemplate", fields)
            page = _object(data) if isinstance(data, dict) else {"data": data}
            templates += [_template_of(entry) for _, entry in _entries(page.get("data"))]
            paging = _object(page.get("paging"))
            after = _text(_object(paging.get("cursors")), "after") or _text(paging, "after")
            if not (after and after != fields.get("after") and paging.get("next", True)):
                break
            fields["after"] = after
        return templates

    async def overview(self) -> AccountOverview:
        """Ask for everything. It raises for cancellation only."""
        balance, numbers, templates = await asyncio.gather(
            *(_or_error(asking) for asking in (self.balance(), self.numbers(), self.templates()))
        )
        return AccountOverview(balance, numbers, templates)

    def _fields(self) -> dict[str, str]:
        return {"appkey": self._settings.appkey, "messaging_product": "whatsapp"}

    @sensitive_variables
    async def _ask(
        self, path: str, action: str, fields: Mapping[str, str] | None = None, *, biz_type: str = "2"
    ) -> object:
        """Ask once, and return the ``data`` of the answer."""
        settings, state = self._settings, self._state
        credentials, body = settings.credentials, b"" if fields is None else orjson.dumps(fields)
        ts = int((state.clock.time() + state.skew.offset) * 1000)
        headers = {
            "accessKey": credentials.access_key,
            "ts": str(ts),
            "sign": sign(body, ts=ts, credentials=credentials, action=action, biz_type=biz_type),
            "bizType": biz_type,
            "action": action,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"nxotp_async/{__version__}",
        }
        try:
            url = settings.url.removesuffix(OTP_PATH) + path
            answer = await state.transport.post(url, body, headers, settings.timeout)
        except OutcomeUnknownError as error:
            raise TransportError(str(error.args[0])) from None  # its hint is about a message
        except NxOtpError:
            raise
        except Exception as error:
            raise TransportError(f"the transport raised {type(error).__name__}") from None
        answer.release(False)
        secrets = (credentials.access_key, credentials.access_secret, credentials.appkey)
        return _data_of(answer.status, answer.body, secrets)


async def _or_error(asking: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what it returns
    try:
        return await asking
    except NxOtpError as error:
        return error


# ---------------------------------------------------------------------------------------------- what is understood


def _data_of(status: int, body: bytes, hide: tuple[str, ...]) -> object:
    """Return the ``data`` of an answer, or raise what it stands for."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    code = _code(answer.get("code")) if isinstance(answer, dict) else None
    if code is None:
        raise TransportError(f"HTTP {status}: the answer is not one of the vendor's API")
    if code == 0:
        return answer.get("data")
    text = redact(_text(answer, "message") or _text(answer, "msg"), hide)[:500]
    known = ResponseCode.find(code)
    kind, meaning = _FURTHER_CODES.get(code, (ApiError, text)) if known is None else (known.error_class, known.meaning)
    hint = None if known is None else known.advice
    error = kind(f"code {code}, {meaning}", code=code, vendor_message=text, http_status=status, hint=hint)
    raise without_frames(error)


def _code(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,6}", value, re.ASCII):
        return int(value)
    return value if type(value) is int else None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _decimal(value: object) -> Decimal | None:
    try:
        number = Decimal(str(value).replace(",", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _entries(data: object) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a list, or of a map to objects or lists of them; each with its key, if there is one."""
    found = data.items() if isinstance(data, dict) else [("", data)]
    for key, value in found:
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, dict):
                yield str(key), entry


def _number_of(key: str, entry: Mapping[str, Any]) -> SendingNumber:
    rating = _text(entry, "quality_rating").upper()
    return SendingNumber(
        number=re.sub(r"\D", "", _text(entry, "display_phone_number") or key),
        quality=Quality(rating) if rating in set(Quality) else Quality.UNKNOWN,  # UNKNOW is written, too
        name=_text(entry, "verified_name"),
        name_status=_text(entry, "name_status"),
        status=_text(entry, "status"),
        daily_limit=_limit(_text(entry, "current_limit")),
        raw=entry,
    )


def _limit(text: str) -> float | None:
    """Return the limit that is written as WhatsApp does (``TIER_1K``, ``TIER_UNLIMITED``), or as a number."""
    text = text.upper().removeprefix("TIER_")
    if text == "UNLIMITED":
        return math.inf
    match = re.fullmatch(r"(\d{1,9})([KM]?)(?:/DAY)?", text, re.ASCII)
    return None if match is None else int(match[1]) * {"": 1, "K": 1_000, "M": 1_000_000}[match[2]]


def _template_of(entry: Mapping[str, Any]) -> Template:
    reason = _text(entry, "rejected_reason")
    return Template(
        id=_text(entry, "id"),
        name=_text(entry, "name"),
        language=_text(entry, "language"),
        category=_text(entry, "category").upper(),
        status=_text(entry, "status").upper(),
        rejected_reason="" if reason.upper() == "NONE" else reason,
        raw=entry,
    )
