"""Faults of the server: scripted, drawn at random, or chosen by the recipient's number."""

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import attrs

from ..checks import number, validate
from ..codes import MetaCode, ResponseCode

__all__ = ["MAGIC_RECIPIENTS", "Fault", "FaultKind", "FaultPlan", "FaultRule"]


class FaultKind(StrEnum):
    """What goes wrong with a request."""

    NONE = "none"
    CODE = "code"
    META = "meta"
    HTTP = "http"
    DISCONNECT_BEFORE_READING = "disconnect_before_reading"
    DISCONNECT_AFTER_READING = "disconnect_after_reading"
    TRUNCATED = "truncated"
    WRONG_TYPES = "wrong_types"
    WITHOUT_ID = "without_id"
    DRIP = "drip"
    HUGE = "huge"
    HANG = "hang"


@attrs.frozen(kw_only=True)
class Fault:
    """What the sandbox does wrong with one request. There is a class method for each kind.

    Attributes:
        kind: The kind.
        code: The vendor's code, Meta's code or the HTTP status, depending on the kind.
        latency: Seconds to wait before anything else.
        retry_after: The ``Retry-After`` header of an HTTP answer, in seconds.
        size: Bytes of a huge answer.
    """

    kind: FaultKind = FaultKind.NONE
    code: int = 0
    latency: float = 0.0
    retry_after: int | None = None
    size: int = 0

    @property
    def accepts(self) -> bool:
        """Whether the message is accepted nevertheless, and only the answer is lost or malformed."""
        match self.kind:
            case FaultKind.CODE | FaultKind.META | FaultKind.DISCONNECT_BEFORE_READING:
                return False
            case FaultKind.HTTP:
                return self.code in (502, 504)  # a gateway that lost its upstream's answer
        return True

    def __str__(self) -> str:
        if self.kind is FaultKind.NONE:
            return f"{self.latency:g} s late" if self.latency else ""
        if self.kind is FaultKind.CODE:
            return "a fault"
        if self.kind is FaultKind.META:
            known = MetaCode.find(self.code)
            return f"Meta's {self.code:d}, {known.meaning if known else 'unknown'}"
        return f"fault {self.kind.replace('_', ' ')} {self.code or ''}".rstrip()

    @classmethod
    def answer(cls, code: int) -> "Fault":
        """Answer with one of the vendor's codes.

        Raises:
            ValueError: It is 0, which is a success, or 9099, for which there is `meta`.
        """
        if code in (ResponseCode.SUCCESS, ResponseCode.WHATSAPP_ERROR):
            raise ValueError("code 0 is not a fault, and for 9099 there is Fault.meta")
        return cls(kind=FaultKind.CODE, code=code)

    @classmethod
    def meta(cls, code: int) -> "Fault":
        """Answer with 9099 and one of Meta's codes."""
        return cls(kind=FaultKind.META, code=code)

    @classmethod
    def http(cls, status: int, *, retry_after: int | None = None) -> "Fault":
        """Answer as a gateway does: an HTTP status with a page of HTML, and a ``Location`` for a redirect.

        Raises:
            ValueError: The status is not between 200 and 599.
        """
        if not 200 <= status <= 599:
            raise ValueError("an HTTP status is between 200 and 599")
        return cls(kind=FaultKind.HTTP, code=status, retry_after=retry_after)

    @classmethod
    def slow(cls, latency: float) -> "Fault":
        """Answer correctly, after some seconds."""
        return cls(latency=latency)

    @classmethod
    def disconnect_before_reading(cls) -> "Fault":
        """Reset the connection after the headers, before the body is read."""
        return cls(kind=FaultKind.DISCONNECT_BEFORE_READING)

    @classmethod
    def disconnect_after_reading(cls) -> "Fault":
        """Accept the message, and reset the connection instead of answering."""
        return cls(kind=FaultKind.DISCONNECT_AFTER_READING)

    @classmethod
    def truncated(cls) -> "Fault":
        """Accept the message, and answer with the first half of the JSON."""
        return cls(kind=FaultKind.TRUNCATED)

    @classmethod
    def wrong_types(cls) -> "Fault":
        """Accept the message, and answer with the code as a string and the id as a number."""
        return cls(kind=FaultKind.WRONG_TYPES)

    @classmethod
    def without_id(cls) -> "Fault":
        """Accept the message, and answer with code 0 and no message id."""
        return cls(kind=FaultKind.WITHOUT_ID)

    @classmethod
    def drip(cls) -> "Fault":
        """Accept the message, and send one space every 50 ms, without end."""
        return cls(kind=FaultKind.DRIP)

    @classmethod
    def huge(cls, size: int = 1 << 20) -> "Fault":
        """Accept the message, and answer with this many bytes of JSON."""
        return cls(kind=FaultKind.HUGE, size=size)

    @classmethod
    def hang(cls) -> "Fault":
        """Accept the message, and never answer."""
        return cls(kind=FaultKind.HANG)


def _number(prefix: int, digits: int) -> str:
    return f"999{prefix}{digits:08d}"


# The country code 999 is not assigned.
MAGIC_RECIPIENTS: Final[Mapping[str, Fault]] = {
    **{
        _number(0, abs(code)): Fault.answer(code)
        for code in ResponseCode
        if code is not ResponseCode.WHATSAPP_ERROR and code
    },
    **{_number(1, code): Fault.meta(code) for code in MetaCode},
    **{_number(2, status): Fault.http(status) for status in (307, 403, 404, 500, 502, 503, 504)},
    _number(2, 429): Fault.http(429, retry_after=1),
    _number(3, 1): Fault.disconnect_before_reading(),
    _number(3, 2): Fault.disconnect_after_reading(),
    _number(3, 3): Fault.truncated(),
    _number(3, 4): Fault.wrong_types(),
    _number(3, 5): Fault.without_id(),
    _number(3, 6): Fault.drip(),
    _number(3, 7): Fault.huge(),
    _number(3, 8): Fault.hang(),
    _number(3, 9): Fault.slow(2.0),
}
"""Numbers that always have the same outcome, like the test cards of card processors.

``9990`` and eight digits: the vendor's code (``999000009001``; -1 is ``999000000001``). ``9991``: 9099 with Meta's
code. ``9992``: an HTTP status. ``9993``: 1 disconnect before reading, 2 disconnect after reading, 3 truncated JSON,
4 wrong types, 5 no message id, 6 a slow drip, 7 a huge body, 8 no answer, 9 a correct answer after 2 seconds.
"""


@attrs.frozen
class FaultRule:
    """A fault that is switched on while the sandbox runs.

    Attributes:
        number: Counts the rules of a sandbox.
        fault: The fault.
        probability: The share of requests that have it, from 0.0 to 1.0.
        to: The recipient's number whose requests have it; with ``None``, those of all numbers.
    """

    number: int
    fault: Fault
    probability: float = 1.0
    to: str | None = None


class FaultPlan:
    """Chooses the fault of each request: first those of the script, then those switched on, then at random.

    Args:
        rate: The share of requests with a random fault, from 0.0 to 1.0.
        faults: The faults to draw from.
        seed: Makes the draws repeatable.

    Raises:
        ValueError: The rate is out of range, or there are no faults to draw from.

    Attributes:
        rules: The faults that are switched on, by their numbers.
    """

    def __init__(self, rate: float, faults: Sequence[Fault], seed: int | None) -> None:
        self._rate = validate("fault_rate", number(at_least=0, at_most=1), rate)
        if rate and not faults:
            raise ValueError("fault_rate needs faults to draw from")
        self._faults = tuple(faults)
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._script: deque[Fault] = deque()
        self.rules: dict[int, FaultRule] = {}

    def script(self, faults: Iterable[Fault]) -> None:
        """Add faults for the next requests, one each."""
        self._script.extend(faults)

    def next(self) -> Fault | None:
        """Return the fault of the next request, if any, as far as it does not depend on the recipient."""
        if self._script:
            return self._script.popleft()
        if switched_on := self.next_to(None):
            return switched_on
        if self._rate and self._random.random() < self._rate:
            return self._random.choice(self._faults)
        return None

    def next_to(self, to: str | None) -> Fault | None:
        """Return the fault that is switched on for the next request to a number, or with ``None`` for all numbers."""
        for rule in self.rules.values():
            if rule.to == to and self._random.random() < rule.probability:
                return rule.fault
        return None
