"""The sandbox in a process of its own, which shares neither event loop nor interpreter lock with the client."""

import asyncio
import subprocess  # nosec B404
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

__all__ = ["sandbox_process"]


@asynccontextmanager
async def sandbox_process(*options: str) -> AsyncIterator[str]:
    """Run ``nxotp sandbox`` with these options on a free port, and yield its URL.

    It ends with the block, or with this process. Ctrl-C at the terminal does not reach it.

    Raises:
        ChildProcessError: It did not start.
    """
    arguments = ["-m", "nxotp_async", "sandbox", "--port", "0", "--until-eof", "--json", *options]
    try:
        # Popen does not block for long, and the program is this Python. asyncio.create_subprocess_exec can be cancelled
        # after the process has started, and would leave it running.
        process = subprocess.Popen(  # noqa: ASYNC220, S603 # nosec B603
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise ChildProcessError(f"the sandbox process did not start: {error}") from None
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
    try:
        first_line = await asyncio.to_thread(process.stdout.readline)
        said = orjson.loads(first_line or b"{}")
        if "url" not in said:
            why = said.get("error", {}).get("message", "see its message above")
            raise ChildProcessError(f"the sandbox process did not start: {why}")
        yield said["url"]
    finally:
        process.terminate()
        process.stdin.close()
        await asyncio.to_thread(process.wait)
        process.stdout.close()
