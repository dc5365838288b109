"""Login in FastAPI: send a code, wait until it is delivered, fall back if it is not, verify it.

In another terminal: ``nxotp sandbox --webhook http://127.0.0.1:8000/nxcloud/``. Set the variables that
it prints, then

    pip install . fastapi uvicorn
    uvicorn --app-dir examples --factory fastapi_login:make_app

    POST /login/code    {"number": "+999 555 0100"}         -> 200 {"login": "...", "status": "sent"}
    POST /login/verify  {"login": "...", "code": "482913"}  -> 200 {"status": "logged in"}, or 401

202 means that the code may arrive, 422 that it is not a phone number, 503 that the code could not be
sent. In production also set NXOTP_DR_WEBHOOK=https://you.example/nxcloud/. With several workers also set
NXOTP_STORE, the URL of what they share, because a callback may come to another worker than the one that
waits for it: docs/deployment.md.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from logins import CODE_LIFE, Logins
from pydantic import BaseModel

from nxotp_async import (
    Credentials,
    InvalidMessageError,
    NxOtpError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
)
from nxotp_async.receivers import AsgiReceiver, CallbackMiddleware
from nxotp_async.stores import store_from_url
from nxotp_async.tracking import DeliveryTracker

DELIVERY_TIMEOUT = 20.0  # seconds until the fallback

log = logging.getLogger(__name__)
router = APIRouter()
logins = Logins()
waits: set[asyncio.Task[None]] = set()


def make_app() -> FastAPI:
    """Return the application. The client is not made at import, before a test has set its variables."""
    app = FastAPI(lifespan=lifespan)
    app.state.store = store_from_url(os.environ.get("NXOTP_STORE") or "memory://")
    app.state.tracker = DeliveryTracker(app.state.store)
    app.state.client = OtpClient(deadline=8, tracker=app.state.tracker)  # seconds; a user is waiting
    app.include_router(router)
    app.exception_handler(RequestValidationError)(on_invalid_request)
    receiver = AsgiReceiver(app.state.tracker, Credentials.from_env())
    app.add_middleware(CallbackMiddleware, path="/nxcloud", receiver=receiver)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Do not start with a store that cannot be used. At the end, stop waiting, and close connections."""
    async with app.state.store, app.state.client:
        yield
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


class CodeRequest(BaseModel):
    """A request for a code."""

    number: str


class CodeAnswer(BaseModel):
    """The code that the user has typed."""

    login: str
    code: str


async def on_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong with a request. FastAPI's own answer would contain the number or the code."""
    detail = [{"loc": each["loc"], "msg": each["msg"]} for each in error.errors()]
    return JSONResponse({"detail": detail}, 422)


@router.post("/login/code")
async def send_code(asked: CodeRequest, request: Request, response: Response) -> dict[str, str]:
    """Send a code. Before this, limit how often each number and each IP address may ask for one."""
    code = f"{secrets.randbelow(1_000_000):06}"
    message_id = secrets.token_hex(16)  # known before the send, so that every callback can be matched
    try:
        message = OtpMessage(
            asked.number,
            f"Your code is {code}",
            cus_message_id=message_id,
            expires_at=datetime.now(UTC) + timedelta(seconds=CODE_LIFE),
        )
    except InvalidMessageError as error:
        raise HTTPException(422, str(error)) from None
    status = "sent"
    try:
        await request.app.state.client.send(message)
    except OutcomeUnknownError:
        response.status_code, status = 202, "may arrive"  # a callback will say whether it was delivered
    except NxOtpError as error:
        log.warning("code %s was not sent: %s", message_id, error)
        raise HTTPException(503, "the code could not be sent") from None
    wait = asyncio.create_task(wait_for_delivery(request.app.state.tracker, message.to, message_id))
    waits.add(wait)  # the event loop keeps only weak references to tasks
    wait.add_done_callback(waits.discard)
    return {"login": logins.begin(message.to, code), "status": status}


@router.post("/login/verify")
async def verify_code(answer: CodeAnswer) -> dict[str, str]:
    """Verify a code."""
    number = logins.verify(answer.login, answer.code)
    if number is None:
        raise HTTPException(401, "wrong or expired code")
    return {"status": "logged in"}  # start the session of the user with this number here


async def wait_for_delivery(tracker: DeliveryTracker, number: str, message_id: str) -> None:
    """Wait until the message is delivered, and fall back if it is not."""
    try:
        state = await tracker.wait(message_id, "delivered", timeout=DELIVERY_TIMEOUT)
    except TimeoutError:
        await fall_back(number)
        return
    if state.status == "failed":
        await fall_back(number)


async def fall_back(number: str) -> None:
    """Reach the user in another way, for example with an SMS or a call. Add your code here."""
