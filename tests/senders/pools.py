"""Pools in virtual time: a transport that answers as it is told, and notes who sent what, and when."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import attrs
from support import VirtualTimeLoop

from nxotp_async import OtpClient, OtpMessage, OutcomeUnknownError, RetryPolicy
from nxotp_async.sandbox import answers, sandbox_client
from nxotp_async.senders import Sender, SenderPool
from nxotp_async.transports import Answer

A, B, C = "99955500001", "99955500002", "99955500003"
NO_RETRY = RetryPolicy(max_attempts=1)
LOST = OutcomeUnknownError("no answer")


@attrs.frozen
class Post:
    at: float
    sender: str
    to: str
    name: str  # the cus_message_id
    key: str  # the accessKey


Judge = Callable[[Post], bytes | Exception | tuple[int, Mapping[str, str], bytes] | None]


class Vendor:
    """A transport: what ``judge`` returns for a post is its answer or its error; otherwise it is accepted."""

    def __init__(self, judge: Judge = lambda post: None, latency: float = 0.05) -> None:
        self.posts: list[Post] = []
        self.accepted: list[Post] = []
        self._judge = judge
        self._latency = latency

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        fields = json.loads(body)
        post = Post(
            now(), fields.get("business_phone", ""), fields["to"], fields["cus_message_id"], headers["accessKey"]
        )
        self.posts.append(post)
        judged = self._judge(post)
        await asyncio.sleep(self._latency)
        if isinstance(judged, Exception):
            raise judged
        if isinstance(judged, tuple):
            return Answer(*judged)
        if judged is None:
            self.accepted.append(post)
            judged = answers.success(post.name)
        return Answer(200, {}, judged)

    async def aclose(self) -> None:
        pass

    def times(self, sender: str) -> list[float]:
        return [post.at for post in self.posts if post.sender == sender]

    def by_sender(self) -> Counter[str]:
        return Counter(post.sender for post in self.accepted)


def now() -> float:
    return asyncio.get_running_loop().time()


def in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def client_of(vendor: Vendor, **options: Any) -> OtpClient:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return sandbox_client("https://otp.example", transport=vendor, clock=loop.clock, **options)


def pool_of(vendor: Vendor, *senders: str | Sender, **options: Any) -> SenderPool:
    named = [Sender(sender) if isinstance(sender, str) else sender for sender in senders or (A, B)]
    return SenderPool(client_of(vendor, **options), named)


def message(number: int, **fields: Any) -> OtpMessage:
    return OtpMessage(f"99956{number:06d}", "482913", cus_message_id=f"m{number}", **fields)


def messages(numbers: Iterable[int]) -> Iterable[OtpMessage]:
    return (message(number) for number in numbers)


def most_in_a_second(times: list[float]) -> int:
    return max((sum(at <= other < at + 1.0 for other in times) for at in times), default=0)
