"""What `nxotp sandbox` prints of requests, and that it holds up nobody."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from requests_by_hand import Api, body_with

from nxotp_async.cli.request_printer import RequestPrinter
from nxotp_async.codes import ResponseCode
from nxotp_async.sandbox import Fault, FaultKind, ReceivedRequest, Sandbox
from nxotp_async.testing import FakeClock


class Paper:
    """What was printed, one text for each time."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.error: OSError | None = None

    async def write(self, data: bytes) -> None:
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        self.written.append(data.decode())

    @property
    def lines(self) -> list[str]:
        return "".join(self.written).splitlines()


class PrinterClock(FakeClock):
    """A clock whose sleepers wait until they are woken, and then it is later."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = asyncio.Event()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.woken.wait()
        self.woken.clear()
        self.advance(seconds)


def request(number: int = 0, **fields: Any) -> ReceivedRequest:
    fields = {"to": "9995550100", "content": "482913", **fields}
    return ReceivedRequest(1_800_000_000.0, {}, b"", fields, ResponseCode.SUCCESS, FaultKind.NONE, f"order-{number}")


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def paper() -> Paper:
    return Paper()


async def test_a_line_is_printed_at_once(paper: Paper) -> None:
    clock = PrinterClock()
    printer = RequestPrinter(None, paper.write, clock)
    printing = asyncio.create_task(printer.run())
    for number in range(3):
        printer.add(request(number))
        await turns()
        assert len(paper.written) == number + 1
    assert [line.split("  ")[-1] for line in paper.lines] == [f"accepted as order-{number}" for number in range(3)]
    assert clock.slept == []
    printing.cancel()


async def test_beyond_fifty_lines_a_second_requests_are_counted(paper: Paper) -> None:
    clock = PrinterClock()
    printer = RequestPrinter(None, paper.write, clock)
    printing = asyncio.create_task(printer.run())
    printer.add(request())
    clock.advance(0.25)
    for number in range(1, 1000):
        printer.add(request(number))
    await turns()
    assert len(paper.lines) == 50
    assert clock.slept == [0.75]
    clock.woken.set()
    await turns()
    assert paper.lines[50:] == ["          950 more, not printed"]
    printer.add(request(1000))
    await turns()
    assert paper.lines[51].endswith("accepted as order-1000")
    printing.cancel()


async def test_the_count_of_a_second_comes_before_the_lines_of_the_next(paper: Paper) -> None:
    clock = FakeClock()
    printer = RequestPrinter(None, paper.write, clock)
    for number in range(51):
        printer.add(request(number))
    clock.advance(1.0)
    printer.add(request(51))
    await printer.finish()
    assert paper.lines[50] == "          1 more, not printed"
    assert paper.lines[51].endswith("accepted as order-51")


async def test_what_is_left_in_the_end_is_printed(paper: Paper) -> None:
    printer = RequestPrinter(None, paper.write, FakeClock())
    for number in range(60):
        printer.add(request(number))
    await printer.finish()
    assert (len(paper.lines), paper.lines[-1]) == (51, "          10 more, not printed")


async def test_a_reader_that_does_not_read_costs_no_memory_and_no_time(paper: Paper) -> None:
    clock = FakeClock()
    paper.ready.clear()
    printer = RequestPrinter(None, paper.write, clock)
    printing = asyncio.create_task(printer.run())
    for number in range(100_000):
        printer.add(request(number))
        clock.advance(0.05)
        if number < 100:
            await asyncio.sleep(0)
    paper.ready.set()
    await turns()
    printing.cancel()
    assert len("".join(paper.written)) < 70_000
    assert sum(int(line.split()[0]) for line in paper.lines if "more" in line) > 90_000


async def test_what_cannot_be_printed_is_said_once(paper: Paper, capsys: pytest.CaptureFixture[str]) -> None:
    paper.error = OSError(28, "No space left on device")
    printer = RequestPrinter(None, paper.write, FakeClock())
    printing = asyncio.create_task(printer.run())
    for number in range(100):
        printer.add(request(number))
        await turns()
    await asyncio.wait_for(printing, 10)
    assert capsys.readouterr().err == (
        "nxotp: cannot write to standard output: No space left on device; requests are not printed any more\n"
    )


async def test_a_line_says_what_became_of_a_request(
    paper: Paper, clock: FakeClock, api_of: Callable[[Sandbox], Api]
) -> None:
    printer = RequestPrinter(None, paper.write, clock)
    async with Sandbox(clock=clock, on_request=printer.add) as sandbox:
        api = api_of(sandbox)
        sandbox.script(Fault.slow(0), Fault.truncated(), Fault.http(503), Fault.meta(131026), Fault.answer(9005))
        for _ in range(5):
            await api.post_good()
        await api.post(body_with(), {"sign": "0" * 32})
        await api.post_good(content="1234 or 5678", to="9" * 5000)
        await api.post_good(to={"a": [1]}, content=["x"])
        await api.post(b"\xff")
        await api.post_good(cus_message_id="x\x1b[2J\n" + "y" * 500)
    await printer.finish()
    assert [line[10:] for line in paper.lines[:-1]] == [
        "99******00       482913    accepted as order-1",
        "99******00       482913    accepted as order-1, but fault truncated",
        "99******00       482913    not accepted: fault http 503",
        "99******00       482913    refused with 9099, WhatsApp error: Meta's 131026, Message undeliverable",
        "99******00       482913    refused with 9005, insufficient account balance: a fault",
        (
            "99******00       482913    refused with 1003, invalid signature: the sign does not match: the access "
            "secret is wrong, or the body is not the one that was signed"
        ),
        (
            "99***********99  -         refused with 9015, no OTP code could be extracted from content: content must "
            "contain exactly one run of 4 to 8 digits"
        ),
        "-                -         refused with 1002, parameter error: not strings: to, content",
        "-                -         refused with 1002, parameter error: the body is not a JSON object",
    ]
    assert "accepted as x\\x1b[2J\\ny" in paper.lines[-1]
    assert len(paper.lines[-1]) == 200
