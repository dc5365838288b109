"""The pytest plugin of nxotp_async.

Every pytest run imports it where the package is installed. Importing anything of the package would import aiohttp, too,
so this module is beside the package, and imports it only when a test uses a fixture.
"""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nxotp_async import OtpClient
    from nxotp_async.sandbox import Sandbox
    from nxotp_async.transports import Answer, SessionPool


@pytest.fixture
def nxotp_sandbox() -> "Iterator[Sandbox]":
    """A running sandbox of NXCloud's API, for this test alone; ``OtpClient()`` uses it until the test ends.

    The ``NXOTP_`` environment variables are set to its address and account, and all others are unset. A client that was
    made earlier cannot send to another machine until the test ends, either. The sandbox runs in a thread of its own, so
    the test and the application may run in any event loop, or in none.
    """
    from nxotp_async.sandbox import Sandbox  # noqa: PLC0415 - see above
    from nxotp_async.testing import serve_in_thread  # noqa: PLC0415

    with serve_in_thread(Sandbox()) as sandbox, pytest.MonkeyPatch.context() as patch:
        _refuse_other_machines(patch)
        for name in [name for name in os.environ if name.startswith("NXOTP_")]:
            patch.delenv(name)
        for name, value in sandbox.environ.items():
            patch.setenv(name, value)
        yield sandbox


def _refuse_other_machines(patch: pytest.MonkeyPatch) -> None:
    """Let every client raise `NotSentError` in place of sending to another machine."""
    from yarl import URL  # noqa: PLC0415 - see above

    from nxotp_async import NotSentError  # noqa: PLC0415
    from nxotp_async.transports import SessionPool  # noqa: PLC0415
    from nxotp_async.urls import is_loopback  # noqa: PLC0415

    post = SessionPool.post

    async def post_to_loopback(
        pool: "SessionPool", url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> "Answer":
        host = URL(url).host or ""
        if not is_loopback(host):
            raise NotSentError(
                f"a test uses the sandbox, and this client would send to {host}: it was made before the test began",
                hint="let the application make its client when it starts, in its lifespan for example",
            )
        return await post(pool, url, body, headers, timeout)

    patch.setattr(SessionPool, "post", post_to_loopback)


@pytest.fixture
def nxotp_client(nxotp_sandbox: "Sandbox") -> "OtpClient":
    """A client of the test's sandbox. It retries without pauses, and need not be closed."""
    from nxotp_async.testing import NO_PAUSES, UnpooledTransport  # noqa: PLC0415 - see above

    return nxotp_sandbox.client(transport=UnpooledTransport(), clock=NO_PAUSES)
