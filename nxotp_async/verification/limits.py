"""How many messages are sent, and what became of them: limits over sliding windows. No I/O, and no clock of its own."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import attrs
import orjson
from cattrs.preconf.orjson import make_converter

from ..checks import InvalidValueError, integer, number, optional, validate
from ..errors import ConfigurationError, RefusalReason, StoreError, VerificationRefusedError

__all__ = ["DAY", "Limits", "Rule", "Scope", "Usage", "rules_of"]

_HOUR: Final = 3600.0
DAY: Final = 86_400.0
_MAX_LIFETIME: Final = 600.0  # seconds; younger messages are not judged, because they may still lead to an approval
_SLOTS: Final = 60  # of a window: a message counts until its whole slot is out of the window
Slots = Mapping[int, int]
"""How many messages there were in each part of a window, by the number of the part since the epoch."""


def _pauses(value: object) -> tuple[float, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidValueError("must be the seconds before each resend, (30, 60, 120) for example")
    return tuple(map(number(at_least=1), value))


def _valid(check: Callable[[object], object]) -> Callable[[object, "attrs.Attribute[Any]", object], object]:
    return lambda _, field, value: validate(f"Limits.{field.name}", check, value, ConfigurationError)


_count: Final = _valid(optional(integer(at_least=1)))
_share: Final = _valid(optional(number(above=0, at_most=1)))


@attrs.frozen(kw_only=True)
class Limits:
    """What a `Verifier` allows. Every count may be ``None``: then there is no such limit.

    Windows slide: no more than so many fall into any hour, or any day. A message may count up to a sixtieth longer.

    Attributes:
        lifetime: Seconds until a verification expires; 600 at most (NIST SP 800-63B).
        checks: How many codes may be checked for a verification.
        resend_after: The seconds before the first resend, between it and the second, and so on; ``()`` allows none.
        number_per_hour: Verifications of one number in an hour.
        number_per_day: The same in a day.
        ip_per_hour: Verifications from one IP address in an hour; of IPv6, from one /64 network.
        prefix_per_hour: Messages in an hour to numbers that differ in the last four digits only.
        country_per_hour: Messages in an hour to one country.
        messages_per_day: Messages in a day, to everybody together.
        min_prefix_conversion: The share of a day's messages to a prefix that must have led to an approval, up to 1. It
            is judged from 20 messages on.
        min_country_conversion: The same for a country, judged from 200 messages on. Off by default, because an attack
            would then shut out a whole country.

    Raises:
        ConfigurationError: A value has the wrong type, or is out of its range.
    """

    lifetime: float = attrs.field(default=300.0, validator=_valid(number(at_least=30, at_most=_MAX_LIFETIME)))
    checks: int = attrs.field(default=5, validator=_valid(integer(at_least=1)))
    resend_after: Sequence[float] = attrs.field(default=(30.0, 60.0, 120.0), validator=_valid(_pauses))
    number_per_hour: int | None = attrs.field(default=5, validator=_count)
    number_per_day: int | None = attrs.field(default=10, validator=_count)
    ip_per_hour: int | None = attrs.field(default=30, validator=_count)
    prefix_per_hour: int | None = attrs.field(default=20, validator=_count)
    country_per_hour: int | None = attrs.field(default=1_000, validator=_count)
    messages_per_day: int | None = attrs.field(default=10_000, validator=_count)
    min_prefix_conversion: float | None = attrs.field(default=0.1, validator=_share)
    min_country_conversion: float | None = attrs.field(default=None, validator=_share)


class Scope(StrEnum):
    """What is counted together."""

    NUMBER = "number"
    IP = "ip"
    PREFIX = "prefix"
    COUNTRY = "country"
    ALL = "all"


@attrs.frozen
class Usage:
    """What was counted in a scope lately: what is stored.

    Attributes:
        hour: Messages of the last hour.
        day: Messages of the last day.
        approved: Approvals of the last day.
        version: The version of this form. A worker does not touch what a newer one has written in another form.
    """

    hour: dict[int, int] = attrs.field(factory=dict)
    day: dict[int, int] = attrs.field(factory=dict)
    approved: dict[int, int] = attrs.field(factory=dict)
    version: int = 1

    def with_message(self, now: float, count: int = 1) -> "Usage":
        """Return the usage after a message; with a count of -1, after one that was counted at ``now`` was not sent."""
        hour, day = _added(self.hour, _HOUR, now, count), _added(self.day, DAY, now, count)
        return attrs.evolve(self, hour=hour, day=day)

    def with_approval(self, now: float) -> "Usage":
        """Return the usage after an approval."""
        return attrs.evolve(self, approved=_added(self.approved, DAY, now, 1))

    def dump(self) -> bytes:
        """Return it as a JSON document."""
        return _converter.dumps(self)

    @classmethod
    def load(cls, value: bytes | None) -> "Usage":
        """Return what a document holds; nothing was counted if there is none.

        Raises:
            StoreError: A newer version of the library has written it.
        """
        if value is None:
            return cls()
        fields = orjson.loads(value)
        if fields["version"] > 1:
            raise StoreError("a newer version of nxotp_async has written this count", hint="update this worker")
        return _converter.structure(fields, cls)


_converter: Final = make_converter(forbid_extra_keys=False)


@attrs.frozen
class Rule:
    """What is allowed in a scope.

    Attributes:
        reason: Why a message more is refused.
        per_hour: Messages in an hour, or ``None``.
        per_day: Messages in a day, or ``None``.
        min_conversion: The share of messages that must have led to an approval, or ``None``.
        judged_from: The number of messages from which on it is judged.
    """

    reason: RefusalReason
    per_hour: int | None = None
    per_day: int | None = None
    min_conversion: float | None = None
    judged_from: int = 0

    @property
    def is_on(self) -> bool:
        """Whether it forbids anything."""
        return not (self.per_hour is None and self.per_day is None and self.min_conversion is None)

    def refusal(self, usage: Usage, now: float) -> VerificationRefusedError | None:
        """Return why no message more may be sent now, or ``None``."""
        waits = [
            _until_below(slots, limit, window, now)
            for slots, limit, window in ((usage.hour, self.per_hour, _HOUR), (usage.day, self.per_day, DAY))
            if limit is not None
        ]
        if wait := max(waits, default=0.0):
            return VerificationRefusedError(f"refused: {self.reason}", reason=self.reason, retry_after=wait)
        return self._low_conversion(usage, now)

    def admit(self, usage: Usage, now: float) -> Usage:
        """Return the usage after a message more.

        Raises:
            VerificationRefusedError: It may not be sent now.
        """
        if refusal := self.refusal(usage, now):
            raise refusal
        return usage.with_message(now)

    def _low_conversion(self, usage: Usage, now: float) -> VerificationRefusedError | None:
        if self.min_conversion is None:
            return None
        width = DAY / _SLOTS
        ended = {slot: count for slot, count in usage.day.items() if (slot + 1) * width <= now - _MAX_LIFETIME}
        wait = _until_below(ended, self.judged_from, DAY, now)
        if not wait or _total(usage.approved, DAY, now) >= self.min_conversion * _total(ended, DAY, now):
            return None
        reason = RefusalReason.LOW_CONVERSION
        return VerificationRefusedError(f"refused: {reason}", reason=reason, retry_after=wait)


def rules_of(limits: Limits) -> Mapping[Scope, Rule]:
    """Return the rule of each scope that has one."""
    prefix, country = limits.min_prefix_conversion, limits.min_country_conversion
    rules = {
        Scope.NUMBER: Rule(RefusalReason.NUMBER_LIMIT, limits.number_per_hour, limits.number_per_day),
        Scope.IP: Rule(RefusalReason.IP_LIMIT, limits.ip_per_hour),
        Scope.PREFIX: Rule(RefusalReason.PREFIX_LIMIT, limits.prefix_per_hour, None, prefix, judged_from=20),
        Scope.COUNTRY: Rule(RefusalReason.COUNTRY_LIMIT, limits.country_per_hour, None, country, judged_from=200),
        Scope.ALL: Rule(RefusalReason.BUDGET, None, limits.messages_per_day),
    }
    return {scope: rule for scope, rule in rules.items() if rule.is_on}


def _current(slots: Slots, window: float, now: float) -> dict[int, int]:
    """Return the slots that are not out of the window yet, the oldest first."""
    oldest = (now - window) * _SLOTS / window - 1  # the end of a slot is the beginning of the next one
    return {slot: slots[slot] for slot in sorted(slots) if slot > oldest}


def _total(slots: Slots, window: float, now: float) -> int:
    return sum(_current(slots, window, now).values())


def _added(slots: Slots, window: float, now: float, count: int) -> dict[int, int]:
    """Return the slots with a count more in the present one, without those that are out of the window."""
    current = _current(slots, window, now)
    present = int(now * _SLOTS / window)
    current[present] = current.get(present, 0) + count
    return {slot: count for slot, count in current.items() if count > 0}


def _until_below(slots: Slots, limit: int, window: float, now: float) -> float:
    """Return the seconds until there are less than so many in the window; 0 if there are less."""
    current = _current(slots, window, now)
    total, wait = sum(current.values()), 0.0
    for slot, count in current.items():
        if total < limit:
            break
        total -= count
        wait = (slot + 1) * window / _SLOTS + window - now
    return wait
