"""`SenderPool` over HTTP, and where it is cancelled anywhere."""

from collections import Counter
from typing import Any

import pytest
from pools import A, B
from support import Unbinding
from test_cancellation import sweep

from nxotp_async import OtpMessage
from nxotp_async.sandbox import Fault, Sandbox
from nxotp_async.senders import Sender, SenderPool, StepBack
from nxotp_async.senders.health import Health
from nxotp_async.testing import NO_PAUSES, serve_in_thread

FAST = [Sender(A, rate=10_000), Sender(B, rate=10_000)]


def by_number(sandbox: Sandbox) -> Counter[str]:
    return Counter(request.fields["business_phone"] for request in sandbox.messages)


async def test_one_that_is_unbound_in_mid_run_sends_nothing_more_and_none_goes_twice() -> None:
    unbinding = Unbinding([A, B], after=150)
    async with unbinding.sandbox as sandbox, sandbox.client(max_concurrency=16) as client:
        pool = SenderPool(client, FAST)
        batch = await pool.send_batch(OtpMessage(f"99956{number:06d}", "482913") for number in range(600))
        assert len(batch.accepted) == 600
        sent = [request.to for request in sandbox.messages]
        assert len(sent) == len(set(sent)) == 600
        assert 1 <= unbinding.refused <= 20  # what was in flight, of 225 others
        assert pool.senders[0].reason is StepBack.UNBOUND
        told = Counter(result.message.business_phone for result in batch)
        assert told == by_number(sandbox)
        assert {past.message.business_phone for result in batch for past in result.history} == {A}


async def test_a_send_that_tries_two_senders_cancelled_anywhere_leaves_nothing_behind() -> None:
    with serve_in_thread(Sandbox(business_phones=[B])) as sandbox:
        async with sandbox.client(clock=NO_PAUSES, max_concurrency=2) as client:
            pool = SenderPool(client, FAST)
            messages = (OtpMessage(f"99956{number:06d}", "482913") for number in range(100))
            of_first = next(one.to for one in messages if pool._team.candidates(one)[0].sender is FAST[0])

            async def send() -> None:
                for member in pool._team.members:
                    member.health = Health()
                assert (await pool.send_otp(of_first, "482913")).history

            assert await sweep(client, send) >= 4
            assert [member.state.of_running_loop().permits._value for member in pool._team.members] == [1, 1]
            assert client.in_flight == 0


@pytest.mark.parametrize("code", [9005, 10003])
async def test_logs_name_the_sender_without_its_number(code: int, caplog: Any) -> None:
    async with Sandbox(business_phones=[A, B]) as sandbox, sandbox.client() as client:
        sandbox.script(Fault.answer(code), Fault.answer(code))
        pool = SenderPool(client, [Sender(A)])
        async for _ in pool.send_many([OtpMessage("+999 555 0100", "482913")]):
            pass
    assert "99*******01" in caplog.text
    assert A not in caplog.text
