"""What can go wrong at a server, as values: for a script, for a random share of the requests, or for one number."""

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import attrs

from ..codes import MetaCode, ResponseCode

__all__ = ["MAGIC_RECIPIENTS", "Fault", "FaultKind", "FaultPlan"]


class FaultKind(StrEnum):
    """The way a request goes wrong."""

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
    """One request's misfortune. The class methods make the kinds there are.

    Attributes:
        kind: What happens.
        code: The vendor's code, Meta's code or the HTTP status, as the kind has it.
        latency: Seconds to wait before anything else happens.
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
        """Whether the message goes out all the same, and only the answer is lost or spoilt."""
        match self.kind:
            case FaultKind.CODE | FaultKind.META | FaultKind.DISCONNECT_BEFORE_READING:
                return False
            case FaultKind.HTTP:
                return self.code in (502, 504)  # a gateway that lost its upstream's answer
        return True

    @classmethod
    def answer(cls, code: int) -> "Fault":
        """Answer with a code of the vendor's.

        Raises:
            ValueError: It is 0, which is no fault, or 9099, which `meta` makes.
        """
        if code in (ResponseCode.SUCCESS, ResponseCode.WHATSAPP_ERROR):
            raise ValueError("code 0 is no fault, and 9099 is made by Fault.meta")
        return cls(kind=FaultKind.CODE, code=code)

    @classmethod
    def meta(cls, code: int) -> "Fault":
        """Answer 9099 with a code of Meta's inside."""
        return cls(kind=FaultKind.META, code=code)

    @classmethod
    def http(cls, status: int, *, retry_after: int | None = None) -> "Fault":
        """Answer as a gateway does: an HTTP status with a page of HTML, and a ``Location`` where it redirects.

        Raises:
            ValueError: The status is not between 200 and 599.
        """
        if not 200 <= status <= 599:
            raise ValueError("an HTTP status is between 200 and 599")
        return cls(kind=FaultKind.HTTP, code=status, retry_after=retry_after)

    @classmethod
    def slow(cls, latency: float) -> "Fault":
        """Answer well, but only after some seconds."""
        return cls(latency=latency)

    @classmethod
    def disconnect_before_reading(cls) -> "Fault":
        """Reset the connection once the headers have come."""
        return cls(kind=FaultKind.DISCONNECT_BEFORE_READING)

    @classmethod
    def disconnect_after_reading(cls) -> "Fault":
        """Accept the message, and reset the connection instead of answering."""
        return cls(kind=FaultKind.DISCONNECT_AFTER_READING)

    @classmethod
    def truncated(cls) -> "Fault":
        """Accept the message, and cut the JSON of the answer in half."""
        return cls(kind=FaultKind.TRUNCATED)

    @classmethod
    def wrong_types(cls) -> "Fault":
        """Accept the message, and answer with the code as a string and the id as a number."""
        return cls(kind=FaultKind.WRONG_TYPES)

    @classmethod
    def without_id(cls) -> "Fault":
        """Accept the message, and answer code 0 without a message id."""
        return cls(kind=FaultKind.WITHOUT_ID)

    @classmethod
    def drip(cls) -> "Fault":
        """Accept the message, and send spaces, one every 50 ms, without end."""
        return cls(kind=FaultKind.DRIP)

    @classmethod
    def huge(cls, size: int = 1 << 20) -> "Fault":
        """Accept the message, and answer with so many bytes of JSON."""
        return cls(kind=FaultKind.HUGE, size=size)

    @classmethod
    def hang(cls) -> "Fault":
        """Accept the message, and never answer."""
        return cls(kind=FaultKind.HANG)


def _number(prefix: int, digits: int) -> str:
    return f"999{prefix}{digits:08d}"


# The country code 999 is assigned to nobody.
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
"""Numbers that always have the same outcome, as card processors have test cards.

``9990`` and eight digits: the vendor's code (``999000009001``; -1 is ``999000000001``). ``9991``: Meta's code inside
9099. ``9992``: an HTTP status. ``9993``: 1 disconnect before reading, 2 disconnect after reading, 3 truncated JSON,
4 wrong types, 5 no message id, 6 a slow drip, 7 a huge body, 8 no answer, 9 a good answer after 2 seconds.
"""


class FaultPlan:
    """Decides which fault a request meets: those of the script first, then a random share.

    Args:
        rate: The share of requests that meet one of the faults, from 0.0 to 1.0.
        faults: What the share is drawn from.
        seed: Makes the draws repeatable.

    Raises:
        ValueError: The rate is out of its range, or there is nothing to draw from.
    """

    def __init__(self, rate: float = 0.0, faults: Sequence[Fault] = (), seed: int | None = None) -> None:
        if not 0.0 <= rate <= 1.0:
            raise ValueError("fault_rate must be between 0.0 and 1.0")
        if rate and not faults:
            raise ValueError("fault_rate needs faults to draw from")
        self._rate = rate
        self._faults = tuple(faults)
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._script: deque[Fault] = deque()

    def script(self, faults: Iterable[Fault]) -> None:
        """Add faults that the next requests meet, one each."""
        self._script.extend(faults)

    def next(self) -> Fault | None:
        """Return the fault the next request meets, if any."""
        if self._script:
            return self._script.popleft()
        if self._rate and self._random.random() < self._rate:
            return self._random.choice(self._faults)
        return None
