"""Login with a one-time password in FastAPI: ask for a code, see that it arrives, verify it.

    pip install "nxotp_async" fastapi uvicorn
    export NXOTP_ACCESS_KEY=... NXOTP_ACCESS_SECRET=... NXOTP_APPKEY=... NXOTP_DR_WEBHOOK=https://you.example/nxcloud/
    uvicorn fastapi_login:app

    POST /login/code    {"number": "+999 555 0100"}             -> {"login": "..."}
    POST /login/verify  {"login": "...", "code": "482913"}      -> {"number": "9995550100"}

The codes live in this process's memory: put `Logins` into your database where you run several.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import BackgroundTasks, FastAPI, HTTPException
from pydantic import BaseModel

from nxotp_async import Credentials, InvalidMessageError, NxOtpError, OtpClient, OtpMessage, OutcomeUnknownError
from nxotp_async.receivers import AsgiReceiver
from nxotp_async.tracking import DeliveryTracker

CODE_LIFE = 300.0  # seconds
ATTEMPTS = 5
DELIVERY_TIMEOUT = 20.0  # seconds until the fallback


@dataclass
class Login:
    """One request for a code. The code itself is not kept, only its keyed hash."""

    number: str
    digest: bytes
    expires_at: float
    attempts_left: int = ATTEMPTS


class Logins:
    """The logins that are under way."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._logins: dict[str, Login] = {}

    def begin(self, number: str, code: str) -> str:
        """Keep a code's hash, and return the id of the login."""
        now = time.monotonic()
        self._logins = {key: login for key, login in self._logins.items() if login.expires_at > now}
        login_id = secrets.token_urlsafe(16)
        self._logins[login_id] = Login(number, self._digest(login_id, code), now + CODE_LIFE)
        return login_id

    def verify(self, login_id: str, code: str) -> str | None:
        """Return the number where the code is the right one, once; every other code costs one of the attempts."""
        login = self._logins.get(login_id)
        if login is None or login.expires_at <= time.monotonic():
            return None
        login.attempts_left -= 1
        is_right = hmac.compare_digest(login.digest, self._digest(login_id, code))
        if is_right or not login.attempts_left:
            del self._logins[login_id]
        return login.number if is_right else None

    def forget(self, login_id: str) -> None:
        """Drop a login whose code was not sent."""
        self._logins.pop(login_id, None)

    def _digest(self, login_id: str, code: str) -> bytes:
        return hmac.digest(self._key, f"{login_id}:{code}".encode(errors="surrogatepass"), hashlib.sha256)


async def fall_back(number: str) -> None:
    """Reach the person in another way: a text message, a call. Here is the place for it."""


async def see_it_arrive(number: str, message_id: str) -> None:
    """Wait until the message is delivered, and fall back where it is not."""
    try:
        state = await app.state.tracker.wait(message_id, "delivered", timeout=DELIVERY_TIMEOUT)
    except TimeoutError:
        await app.state.fall_back(number)
        return
    if state.status == "failed":
        await app.state.fall_back(number)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client, and close it in the end."""
    async with OtpClient(deadline=8) as app.state.otp:
        yield


app = FastAPI(lifespan=lifespan)
app.state.logins = Logins()
app.state.tracker = DeliveryTracker()
app.state.fall_back = fall_back
app.mount(
    "/nxcloud",
    AsgiReceiver(
        app.state.tracker,
        Credentials(os.environ.get("NXOTP_ACCESS_KEY", ""), os.environ.get("NXOTP_ACCESS_SECRET", "")),
    ),
)


class CodeRequest(BaseModel):
    """Whom to send a code."""

    number: str


class CodeAnswer(BaseModel):
    """What the person has typed."""

    login: str
    code: str


@app.post("/login/code")
async def send_code(request: CodeRequest, background: BackgroundTasks) -> dict[str, str]:
    """Send a code. Limit how often one number and one address may ask, in front of this."""
    code = f"{secrets.randbelow(1_000_000):06}"
    message_id = secrets.token_hex(16)  # known before it is sent, so that a callback finds it in any case
    try:
        message = OtpMessage(
            request.number,
            f"Your code is {code}",
            cus_message_id=message_id,
            expires_at=datetime.now(UTC) + timedelta(seconds=CODE_LIFE),
        )
    except InvalidMessageError as error:
        raise HTTPException(422, str(error)) from None
    login = app.state.logins.begin(message.to, code)
    try:
        await app.state.tracker.add(await app.state.otp.send(message))
    except OutcomeUnknownError:
        pass  # it may be on its way; the callback will tell
    except NxOtpError:
        app.state.logins.forget(login)
        raise HTTPException(503, "the code could not be sent") from None
    background.add_task(see_it_arrive, message.to, message_id)
    return {"login": login}


@app.post("/login/verify")
async def verify_code(answer: CodeAnswer) -> dict[str, str]:
    """Verify a code."""
    number = app.state.logins.verify(answer.login, answer.code)
    if number is None:
        raise HTTPException(401, "wrong or expired code")
    return {"number": number}
