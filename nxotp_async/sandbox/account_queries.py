"""The sandbox's one account, and the answers to what is asked about it, as the vendor's pages show them."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

import attrs
import orjson

from ..account import BALANCE_PATH, NUMBERS_PATH, TEMPLATES_PATH
from ..codes import ResponseCode
from ..languages import Language
from ..signing import Credentials
from .answers import failure
from .checks import check_headers, parse_body
from .faults import Fault

__all__ = ["QUERIES", "SandboxAccount", "answer_query"]

QUERIES: Final[Mapping[str, tuple[str, str]]] = {
    BALANCE_PATH: ("getBalance", "3"),
    NUMBERS_PATH: ("getPhone", "2"),
    TEMPLATES_PATH: ("getTemplate", "2"),
}
"""The action and the bizType of each path."""
_PAGE: Final = 20  # templates


@attrs.define
class SandboxAccount:
    """The sandbox's account. What it says may be changed at any time.

    Attributes:
        currency: Of the balance.
        balance: The money that is left. Each message costs ``price``; without enough, messages are refused with 9005.
        credit: What may be spent beside the balance.
        price: What a message costs.
        languages: Those with an approved template; messages in others are refused with 10005.
        quality: The rating of numbers that are not rated ``GREEN``.
        current_limit: The recipients in 24 hours, as WhatsApp writes it; the sandbox does not count them.
    """

    currency: str = "CNY"
    balance: Decimal = Decimal(1000)
    credit: Decimal = Decimal(0)
    price: Decimal = Decimal(0)
    languages: Collection[str] = tuple(Language)
    quality: Mapping[str, str] = attrs.field(factory=dict)
    current_limit: str = "TIER_UNLIMITED"

    def refuse(self, language: str) -> Fault | None:
        """Return what a message in this language is refused with, or ``None``."""
        if language not in self.languages:
            return Fault.answer(ResponseCode.TEMPLATE_MISSING)
        if self.price > self.balance + self.credit:
            return Fault.answer(ResponseCode.INSUFFICIENT_BALANCE)
        return None


def answer_query(
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    account: SandboxAccount,
    business_phones: Collection[str],
    credentials: Credentials,
    *,
    now_ms: int,
) -> bytes:
    """Return the answer to what is asked about the account. The arguments are as for `check_headers`."""
    action, biz_type = QUERIES[path]
    code, why = check_headers(headers, body, credentials, now_ms=now_ms, action=action, biz_type=biz_type)
    fields = parse_body(body) or {}
    if code is ResponseCode.SUCCESS and path != BALANCE_PATH and fields.get("appkey") != credentials.appkey:
        code, why = ResponseCode.APPLICATION_UNAVAILABLE, "unknown appkey"
    if code is not ResponseCode.SUCCESS:
        return failure(code, why)
    if path == TEMPLATES_PATH and fields.get("business_phone") not in business_phones:
        return failure(ResponseCode.BUSINESS_PHONE_NOT_BOUND, "unknown business_phone")
    if path == TEMPLATES_PATH:
        data = _templates(account, str(fields.get("after", "")))
    elif path == NUMBERS_PATH:
        data = _numbers(account, business_phones)
    else:
        money = {"amount_cus": f"{account.balance:.2f}", "credit_cus": f"{account.credit:.2f}"}
        data = {"currency": account.currency, **money}
    return orjson.dumps({"code": 0, "message": "Success", "data": data, "traceId": "sandbox"})


def _numbers(account: SandboxAccount, business_phones: Collection[str]) -> dict[str, Any]:
    return {
        number: [
            {
                "display_phone_number": f"+{number}",
                "quality_rating": account.quality.get(number, "GREEN"),
                "verified_name": "Sandbox",
                "name_status": "APPROVED",
                "status": "CONNECTED",
                "current_limit": account.current_limit,
                "code_verification_status": "VERIFIED",
            }
        ]
        for number in business_phones
    }


def _templates(account: SandboxAccount, after: str) -> dict[str, Any]:
    start = int(after) if after.isascii() and after.isdigit() else 0
    templates: list[dict[str, Any]] = [
        {
            "id": f"sandbox-{language}",
            "name": "otp",
            "language": language,
            "category": "AUTHENTICATION",
            "status": "APPROVED" if language in account.languages else "REJECTED",
            "rejected_reason": "NONE" if language in account.languages else "INVALID_FORMAT",
            "quality_score": {"score": "GREEN"},
            "components": [],
        }
        for language in Language
    ]
    end = start + _PAGE
    cursors = {"before": str(start), "after": str(end)} if end < len(templates) else {}
    return {"data": templates[start:end], "paging": {"cursors": cursors}}
