"""Login in aiohttp: send a code, report whether it was delivered, verify it.

In another terminal: ``nxotp sandbox --webhook http://127.0.0.1:8000/nxcloud/``. Set the variables that
it prints, then

    pip install .
    python examples/aiohttp_login.py

    POST /login/code    number=+999 555 0100 -> 200 {"login": "...", "message": "...", "status": "sent"}
    GET  /delivery/{message}                 -> 200 {"delivery": "delivered"}
    POST /login/verify  login=... code=482913 -> 200 {"status": "logged in"}, or 401

202 means that the code may arrive, 422 that it is not a phone number, 503 that the code could not be
sent. In production also set NXOTP_DR_WEBHOOK=https://you.example/nxcloud/.
"""

import logging
import os
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from aiohttp import web
from logins import CODE_LIFE, Logins

from nxotp_async import (
    Credentials,
    InvalidMessageError,
    NxOtpError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
    SendStatus,
)
from nxotp_async.receivers import HANDLER_ARGS, aiohttp_receiver
from nxotp_async.tracking import DeliveryTracker

CLIENT = web.AppKey("client", OtpClient)
LOGINS = web.AppKey("logins", Logins)
TRACKER = web.AppKey("tracker", DeliveryTracker)

log = logging.getLogger(__name__)
routes = web.RouteTableDef()


@routes.post("/login/code")
async def send_code(request: web.Request) -> web.Response:
    """Send a code. Before this, limit how often each number and each IP address may ask for one."""
    code = f"{secrets.randbelow(1_000_000):06}"
    message_id = secrets.token_hex(16)  # known before the send, so that every callback can be matched
    try:
        message = OtpMessage(
            await field(request, "number"),
            f"Your code is {code}",
            cus_message_id=message_id,
            expires_at=datetime.now(UTC) + timedelta(seconds=CODE_LIFE),
        )
    except InvalidMessageError as error:
        raise web.HTTPUnprocessableEntity(text=str(error)) from None
    http_status, status = 200, "sent"
    try:
        await request.app[CLIENT].send(message)
    except OutcomeUnknownError:
        http_status, status = 202, "may arrive"  # a callback will say whether it was delivered
    except NxOtpError as error:
        log.warning("code %s was not sent: %s", message_id, error)
        raise web.HTTPServiceUnavailable(text="the code could not be sent") from None
    login = request.app[LOGINS].begin(message.to, code)
    answer = {"login": login, "message": message_id, "status": status}
    return web.json_response(answer, status=http_status)


@routes.get("/delivery/{message}")
async def delivery(request: web.Request) -> web.Response:
    """Return the delivery status of a code. A page can poll this, and offer a call."""
    state = await request.app[TRACKER].state(request.match_info["message"])
    if state is None or state.send_status is SendStatus.UNKNOWN:
        return web.json_response({"delivery": "unknown"})
    return web.json_response({"delivery": state.status})


@routes.post("/login/verify")
async def verify_code(request: web.Request) -> web.Response:
    """Verify a code."""
    number = request.app[LOGINS].verify(await field(request, "login"), await field(request, "code"))
    if number is None:
        raise web.HTTPUnauthorized(text="wrong or expired code")
    return web.json_response({"status": "logged in"})  # start the session of this number's user here


async def close_client(app: web.Application) -> AsyncIterator[None]:
    """Close the client's connections after the last answer. The client opens them when needed."""
    async with app[CLIENT]:
        yield


async def field(request: web.Request, name: str) -> str:
    """Return a field of the request's form, or an empty str."""
    try:
        return str((await request.post()).get(name, ""))
    except ValueError:
        raise web.HTTPBadRequest(text="the form cannot be read") from None


def make_app() -> web.Application:
    """Return the application."""
    app = web.Application(handler_args=HANDLER_ARGS)  # closes connections on which no request comes
    app[TRACKER] = DeliveryTracker()
    app[CLIENT] = OtpClient(deadline=8, tracker=app[TRACKER])  # seconds; a user is waiting
    app[LOGINS] = Logins()
    app.cleanup_ctx.append(close_client)
    app.add_routes(routes)
    app.add_subapp("/nxcloud", aiohttp_receiver(app[TRACKER], Credentials.from_env()))
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
