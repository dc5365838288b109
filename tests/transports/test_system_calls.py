"""Whatever the operating system refuses, a send ends with a result, and with a true one."""

import asyncio
import subprocess
import sys

import pytest

from nxotp_async.sandbox import Sandbox

# Runs in a process of its own: what the system refuses there is refused to everything in the process.
PROGRAM = """
import asyncio, errno, os, resource, socket, sys
from nxotp_async import NxOtpError, OtpClient, OtpMessage, RetryPolicy
from nxotp_async.sandbox import SANDBOX_CREDENTIALS as keys

url, what = sys.argv[1:]

def refuse(number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))
    return refused

class Socket(socket.socket):
    pass

def break_the_system():
    if what == "file descriptors":
        # Python keeps its own open; there are none left for a socket, or for the import of a module.
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    elif what.startswith("audit "):
        event = what.removeprefix("audit ")
        sys.addaudithook(lambda name, _: refuse(errno.EMFILE)() if name == event else None)
    else:
        method, number = what.split()
        setattr(Socket, method, refuse(getattr(errno, number)))
        socket.socket = Socket

async def main():
    client = OtpClient(
        access_key=keys.access_key, access_secret=keys.access_secret, appkey=keys.appkey, base_url=url,
        rate_limit=1000, retry=RetryPolicy(backoff_base=0.001, reconnect_for=0.01),
    )
    async with client:
        break_the_system()
        async for result in client.send_many([OtpMessage("+9995550100", "482913") for _ in range(3)]):
            print(result.status, type(result.error).__name__ if result.error else "")
        try:
            await client.send_otp("+9995550100", "482913")
            print("accepted")
        except NxOtpError as error:
            print(type(error).__name__)

asyncio.run(main())
"""
SENT_METHODS = ("send", "recv", "recv_into")


@pytest.mark.parametrize(
    "what",
    [
        "file descriptors",
        *(f"audit {event}" for event in ("import", "open", "socket.__new__", "socket.connect", "socket.getaddrinfo")),
        "connect ENETUNREACH",
        "connect ENOBUFS",
        "setblocking EBADF",
        "setsockopt ENOBUFS",
        "getpeername ENOTCONN",
        "fileno EBADF",
        *(f"{method} {number}" for method in SENT_METHODS for number in ("ECONNRESET", "ENOBUFS", "EPIPE")),
    ],
)
@pytest.mark.usefixtures("transport_kind")
async def test_a_system_call_that_fails_is_a_result(what: str, sandbox: Sandbox) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, sandbox.url, what, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    lines = out.decode().splitlines()
    assert (process.returncode, len(lines)) == (0, 4), err.decode()
    said = {line.split()[0] for line in lines[:3]}
    if sandbox.requests:
        # They have arrived: whoever could not read the answer, or saw the write fail, does not know.
        assert said <= {"accepted", "unknown"}
    else:
        assert said <= {"not_sent", "unknown"}
        if what.split(maxsplit=1)[0] not in SENT_METHODS:
            assert said == {"not_sent"}, out
