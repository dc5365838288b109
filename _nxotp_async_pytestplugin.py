"""The pytest plugin of nxotp_async.

Every pytest run imports it where the package is installed. Importing anything of the package would import aiohttp, too,
so this module is beside the package, and imports it only when a test uses a fixture.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from nxotp_async import OtpClient
    from nxotp_async.sandbox import Sandbox
    from nxotp_async.testing import FakeClock
    from nxotp_async.verification import Verifier


@pytest.fixture
def nxotp_clock() -> "Iterator[FakeClock]":
    """A clock that stands still, at the time when the test began, for the sandbox and every client and verifier.

    Clients that are made before it are not changed.
    """
    import time  # noqa: PLC0415 - used by this fixture alone

    from nxotp_async import OtpClient  # noqa: PLC0415 - see above
    from nxotp_async.testing import FakeClock  # noqa: PLC0415

    clock, make = FakeClock(time.time()), OtpClient.__init__

    def make_with_clock(client: OtpClient, **options: Any) -> None:  # noqa: ANN401 - OtpClient checks them
        make(client, **{**options, "clock": options.get("clock") or clock})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OtpClient, "__init__", make_with_clock)
        yield clock


@pytest.fixture
def nxotp_sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """A running sandbox of NXCloud's API, for this test alone; ``OtpClient()`` uses it until the test ends.

    The ``NXOTP_`` environment variables are set to its address and account, a key for verifiers and a store in memory,
    and all others are unset. A client that was
    made earlier cannot send to another machine until the test ends, either. The sandbox runs in a thread of its own, so
    the test and the application may run in any event loop, or in none. It pushes the status callbacks of messages whose
    ``dr_webhook`` is on loopback.
    """
    from nxotp_async.sandbox import CallbackPlan, Sandbox  # noqa: PLC0415 - see above
    from nxotp_async.testing import serve_in_thread  # noqa: PLC0415

    clock = request.getfixturevalue("nxotp_clock") if "nxotp_clock" in request.fixturenames else None
    server = Sandbox(callbacks=CallbackPlan(), clock=clock)
    with serve_in_thread(server) as sandbox, pytest.MonkeyPatch.context() as patch:
        _refuse_other_machines(patch)
        for name in [name for name in os.environ if name.startswith("NXOTP_")]:
            patch.delenv(name)
        for name, value in {**sandbox.environ, **_FOR_VERIFIERS}.items():
            patch.setenv(name, value)
        yield sandbox


_FOR_VERIFIERS = {"NXOTP_VERIFICATION_KEY": "the key of a test and of nothing else", "NXOTP_STORE": "memory://"}


class _NoTransport:
    """In the place of the transport of a client that would send to another machine."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> NoReturn:  # noqa: ARG002
        """Raise `NotSentError`."""
        from yarl import URL  # noqa: PLC0415 - see above

        from nxotp_async import NotSentError  # noqa: PLC0415

        host = URL(url).host
        raise NotSentError(
            f"a test uses the sandbox, and this client would send to {host}: it was made before the test began",
            hint="let the application make its client when it starts, in its lifespan for example",
        )


def _refuse_other_machines(patch: pytest.MonkeyPatch) -> None:
    """Let every client raise `NotSentError` in place of sending to another machine, whatever its transport.

    Every message of every client is a `Delivery`, which is given the transport. Only a sandbox in memory may have any
    URL.
    """
    from yarl import URL  # noqa: PLC0415 - see above

    from nxotp_async.delivery import Delivery  # noqa: PLC0415
    from nxotp_async.testing import MemoryTransport  # noqa: PLC0415
    from nxotp_async.urls import is_loopback  # noqa: PLC0415

    make = Delivery.__init__

    def make_for_loopback(delivery: Delivery, message: Any, settings: Any, client: Any, *state: Any) -> None:  # noqa: ANN401 - as Delivery has them
        if not (is_loopback(URL(settings.url).host or "") or isinstance(client.transport, MemoryTransport)):
            client = copy.copy(client)
            client.transport = _NoTransport()
        make(delivery, message, settings, client, *state)

    patch.setattr(Delivery, "__init__", make_for_loopback)


@pytest.fixture
def nxotp_client(nxotp_sandbox: "Sandbox", request: pytest.FixtureRequest) -> "OtpClient":
    """A client of the test's sandbox. It retries without pauses, and need not be closed."""
    from nxotp_async.testing import NO_PAUSES, UnpooledTransport  # noqa: PLC0415 - see above

    clock = request.getfixturevalue("nxotp_clock") if "nxotp_clock" in request.fixturenames else NO_PAUSES
    return nxotp_sandbox.client(transport=UnpooledTransport(), clock=clock)


@pytest.fixture
def nxotp_verifier(nxotp_client: "OtpClient") -> "Verifier":
    """A verifier over the test's sandbox and a store of its own, with the usual limits, for numbers of all countries.

    ``code_for(nxotp_sandbox, number)`` of `nxotp_async.testing` is the code that it has sent.
    """
    from nxotp_async.stores import MemoryStore  # noqa: PLC0415 - see above
    from nxotp_async.verification import Verifier  # noqa: PLC0415

    return Verifier(nxotp_client, store=MemoryStore(), countries="any")
