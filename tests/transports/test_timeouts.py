"""A process that was stopped reads what has arrived before its timers end anything."""

import asyncio
import socket

import pytest
from support import VirtualTimeLoop

from nxotp_async.transports.timeouts import LenientTimeout


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time can jump, as it does for a process that was stopped."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def frozen_while_it_waits(for_data: bool) -> bytes:
    """Wait a second for a byte that arrives while the process is stopped for a minute, or not at all."""
    ours, theirs = socket.socketpair()

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        reader, writer = await asyncio.open_connection(sock=ours)

        def freeze() -> None:
            loop.ahead += 60
            if for_data:
                theirs.send(b"x")

        loop.call_soon(freeze)
        try:
            async with LenientTimeout(1.0):
                return await reader.read(1)
        finally:
            writer.close()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner, theirs:
        return runner.run(main())


def test_what_arrived_while_the_process_was_stopped_is_read() -> None:
    assert frozen_while_it_waits(for_data=True) == b"x"


def test_a_stopped_process_does_not_wait_for_what_never_came() -> None:
    with pytest.raises(TimeoutError):
        frozen_while_it_waits(for_data=False)


def test_the_time_that_is_given_is_the_time_that_passes() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with LenientTimeout(2.0):
                await asyncio.sleep(60)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) == pytest.approx(2.0, abs=0.01)


async def test_what_is_over_in_time_ends_as_usual() -> None:
    async with LenientTimeout(60):
        result = await asyncio.sleep(0, "done")
    assert result == "done"


async def test_a_cancellation_is_no_timeout() -> None:
    async def wait() -> None:
        async with LenientTimeout(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
