"""How much memory a hostile answer costs: a body of 1 GiB, and a gzip bomb of 1 GiB.

Each answer is met by a process of its own, whose peak memory is compared with that of the same process after an
ordinary send. The server runs in this process.

    python benchmarks/hostile_answers.py
"""

import asyncio
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from time import monotonic

from answering import peak_kib

from nxotp_async import NxOtpError
from nxotp_async.sandbox import sandbox_client

GIB = 1 << 30
SUCCESS = b'{"code":0,"data":{"messages":[{"id":"m"}]},"message":"Request successful"}'


def gzip_bomb() -> Iterator[bytes]:
    """Yield a gigabyte of spaces, compressed to a megabyte."""
    compressor = zlib.compressobj(9, wbits=31)
    spaces = b" " * (1 << 20)
    for _ in range(GIB >> 20):
        if chunk := compressor.compress(spaces):
            yield chunk
    yield compressor.flush()


async def pour(writer: asyncio.StreamWriter) -> None:
    """Answer with a gigabyte of spaces."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
    for _ in range(GIB >> 16):
        writer.write(b" " * (1 << 16))
        await writer.drain()


@cache
def bomb() -> bytes:
    """Return the gzip bomb, which takes seconds to make."""
    return b"".join(gzip_bomb())


async def explode(writer: asyncio.StreamWriter) -> None:
    """Answer with a gzip bomb."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb()) + bomb())
    await writer.drain()


async def serve(hostile: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> asyncio.Server:
    """Start a server whose first answer is ordinary, and whose further ones are hostile."""
    served = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            served += 1
            if served == 1:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SUCCESS) + SUCCESS)
            else:
                await hostile(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


async def meet(url: str) -> None:
    """Send an ordinary message, then one that gets the hostile answer, and print what that cost."""
    async with sandbox_client(url) as client:
        await client.send_otp("+999 555 0100", "482913")
        before, started = peak_kib(), monotonic()
        try:
            await client.send_otp("+999 555 0100", "482913")
        except NxOtpError as error:
            print(f"  {type(error).__name__} after {monotonic() - started:.3f} s, peak +{peak_kib() - before} KiB")
            return
    sys.exit("the hostile answer was accepted")


async def main() -> None:
    """Let a process meet each of the answers."""
    bomb()
    for hostile in (pour, explode):
        print(hostile.__doc__)
        async with await serve(hostile) as server:
            url = "http://127.0.0.1:{}".format(*server.sockets[0].getsockname()[1:])
            process = await asyncio.create_subprocess_exec(sys.executable, __file__, url)
            if await process.wait():
                sys.exit(1)


if __name__ == "__main__":
    asyncio.run(meet(sys.argv[1]) if sys.argv[1:] else main())
