import random
import string
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from bulk_ledgers import (
    ACCEPTED,
    CODE,
    FAR,
    NOT_SENT,
    NOW,
    REJECTED,
    UNKNOWN,
    begin,
    claim,
    entry,
    expiring,
    record,
    states,
    take,
)

from nxotp_async.bulk import Ledger, MessageState
from nxotp_async.bulk.schema import Transition

# ---------------------------------------------------------------------------------------------- erased codes


def found(directory: Path, needles: Sequence[str]) -> list[tuple[str, str]]:
    """Return which of these texts are in which file."""
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    return [(needle, name) for needle in needles for name, content in files.items() if needle.encode() in content]


def letters(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_letters, k=length))


_LONG = letters(2000, 1) + f" {CODE} " + letters(1992, 2)
_CANARIES = {
    "the code alone": (CODE, [CODE]),
    "a sentence": (f"Your code is {CODE}, for you", [CODE, "Your code is", "for you"]),
    # So much does not fit into a page of SQLite's, and goes on in others.
    "4000 characters": (_LONG, [CODE, *[_LONG[at : at + 20] for at in range(0, 4000, 400)], _LONG[-20:]]),
}


@pytest.mark.parametrize("state", [ACCEPTED, REJECTED, NOT_SENT])
@pytest.mark.parametrize("canary", _CANARIES)
def test_the_code_of_a_final_message_is_in_no_byte(tmp_path: Path, canary: str, state: MessageState) -> None:
    content, needles = _CANARIES[canary]
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(ledger, entry(1, content, extra={"name": "Bo"}))
        begin(ledger)
        claim(ledger)
        assert {needle for needle, _ in found(tmp_path, needles)} == set(needles)
        record(ledger, Transition(1, state, 1, error="Error", reason="because"))
        ledger.forget_codes()
        assert found(tmp_path, needles) == []
        assert found(tmp_path, ["because", "id-1"]) == [("because", "run.ledger"), ("id-1", "run.ledger")]
    assert found(tmp_path, needles) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run.ledger"]


def test_no_code_of_many_messages_remains_in_the_gaps_of_the_file(tmp_path: Path) -> None:
    # Rows of many lengths grow while they are sent, and SQLite moves them about.
    chance = random.Random(1)
    needles = [f"<{letters(12, number)}>" for number in range(1500)]
    with Ledger(tmp_path / "run.ledger") as ledger:
        rows = [
            entry(number, f"{CODE} {needle} {'x' * chance.randrange(500)}", to=f"999{number:07}")
            for number, needle in enumerate(needles, start=1)
        ]
        take(ledger, *rows)
        begin(ledger)
        while (claimed := claim(ledger, 64)).messages:
            record(
                ledger,
                *[
                    Transition(message.key, ACCEPTED, 1, message_id=f"wamid.{'A' * chance.randrange(60)}")
                    for message in claimed.messages
                ],
            )
        assert ledger.counts() == {ACCEPTED: 1500}
        ledger.forget_codes()
        assert found(tmp_path, needles) == []
    assert found(tmp_path, [*needles, CODE]) == []


def test_expired_codes_are_in_no_byte_and_unknown_ones_stay_until_then(tmp_path: Path) -> None:
    contents_ = {
        "queued, expires": "Q482913", "unknown, expires": "U482913", "unknown, settled": "S482913",
        "queued": "q739155", "unknown": "u739155",
    }  # fmt: skip
    queued, unknown, settled, kept_queued, kept_unknown = contents_.values()
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(
            ledger,
            expiring(1, 10, content=unknown),
            entry(2, kept_unknown, expires_at=FAR),
            entry(3, settled),
            expiring(4, 10, content=queued),
            entry(5, kept_queued),
        )
        begin(ledger)
        claim(ledger, 3)
        record(ledger, *[Transition(key, UNKNOWN, 1) for key in (1, 2, 3)])
        ledger.forget_codes()
        assert {needle for needle, _ in found(tmp_path, list(contents_.values()))} == set(contents_.values())
        ledger.resolve({"id-3": "delivered"})
        assert ledger.expire(NOW + 10).total() == 1
        ledger.forget_codes()
        left = [(kept_queued, "run.ledger"), (kept_unknown, "run.ledger")]
        assert found(tmp_path, list(contents_.values())) == left
    assert found(tmp_path, list(contents_.values())) == left
    with Ledger(tmp_path / "run.ledger") as ledger:
        assert ledger.requeue(["id-1", "id-2", "id-3"]) == 1


def test_a_file_that_was_refused_leaves_no_code(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.ledger") as ledger:
        with suppress(ZeroDivisionError), ledger.transaction():
            assert ledger.add(ledger.add_source("otps.csv", NOW), [entry(1, "Your code is 739155")], NOW) == {}
            raise ZeroDivisionError
        assert states(ledger) == []
        ledger.forget_codes()
        assert found(tmp_path, ["739155"]) == []
    assert found(tmp_path, ["739155"]) == []
