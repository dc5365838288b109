"""Names are looked up in threads that nobody has to wait for."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nxotp_async import NotSentError
from nxotp_async.transports import SessionPool
from nxotp_async.transports.resolver import Resolver


async def test_localhost_is_found() -> None:
    found = await Resolver().resolve("localhost", 443, socket.AF_INET)
    assert {address["host"] for address in found} == {"127.0.0.1"}
    assert {address["port"] for address in found} == {443}


async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(OSError, match=r"(?i)name|address"):
        await Resolver().resolve("otp.invalid", 443)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "\udcff.example"])
async def test_a_name_that_cannot_be_encoded(host: str) -> None:
    with pytest.raises(OSError, match=r"UnicodeError|UnicodeEncodeError|label"):
        await Resolver().resolve(host, 443)


def hang(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the DNS not answer before the returned function is called."""
    answer = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        answer.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answer.set


def test_a_dns_that_hangs_does_not_hold_up_the_end_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    release = hang(monkeypatch)

    async def main() -> None:
        pool = SessionPool()
        with pytest.raises(NotSentError, match=r"no connection to otp\.example within 0\.01 s"):
            await pool.post("https://otp.example/", b"{}", {}, 0.01)
        await pool.aclose()

    # asyncio.run waits for the threads of asyncio's executor: it would not return before the DNS does.
    asyncio.run(main())
    lookups = [thread for thread in threading.enumerate() if thread.name == "nxotp_async: look up otp.example"]
    assert [thread.daemon for thread in lookups] == [True]
    release()
    lookups[0].join()  # it finds its loop closed, and says nothing of it


async def test_no_more_threads_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = SessionPool()
    with pytest.raises(NotSentError) as caught:
        await pool.post("https://otp.example/", b"{}", {}, 5)
    assert caught.value.temporary
    await pool.aclose()
