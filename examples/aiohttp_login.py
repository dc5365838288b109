"""Login in aiohttp, in any number of processes: a code is sent, checked, and a session begins.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install ".[verification]" itsdangerous
    export NXOTP_VERIFICATION_KEY=$(openssl rand -hex 32) SESSION_KEY=$(openssl rand -hex 32)
    export NXOTP_STORE=memory://
    python examples/aiohttp_login.py

and open http://127.0.0.1:8000/. What /login/start, /login/resend and /login/check take and answer:
docs/endpoints.md. For several processes, NXOTP_STORE is the URL of what they share: docs/deployment.md.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from itsdangerous import BadSignature, URLSafeTimedSerializer

from nxotp_async import OtpClient
from nxotp_async.receivers import HANDLER_ARGS
from nxotp_async.stores import store_from_url
from nxotp_async.verification import Verifier
from nxotp_async.verification.aiohttp import VERIFIER, verification_routes

SESSION_LIFE = 14 * 24 * 3600  # seconds
SESSIONS = web.AppKey("sessions", URLSafeTimedSerializer)

routes = web.RouteTableDef()


def make_app() -> web.Application:
    """Return the application."""
    app = web.Application(handler_args=HANDLER_ARGS)  # closes connections on which no request comes
    app[SESSIONS] = URLSafeTimedSerializer(os.environ["SESSION_KEY"], salt="session")
    app.cleanup_ctx.append(make_verifier)
    app.add_routes(verification_routes("/login", log_in, region="ID"))
    app.add_routes(routes)
    return app


async def make_verifier(app: web.Application) -> AsyncIterator[None]:
    """Do not start with a store that cannot be used. After the last answer, close all connections."""
    async with OtpClient(deadline=8) as client, store_from_url() as store:  # seconds; a user is waiting
        app[VERIFIER] = Verifier(client, store=store, countries={"ID", "SG"})
        yield


async def log_in(request: web.Request, number: str) -> web.Response:
    """Begin the session of the user with this number: it is in a signed cookie."""
    response = web.json_response({"status": "logged in"})
    session = request.app[SESSIONS].dumps(number)  # or the id of your user
    # Browsers send the cookie over https only, and to 127.0.0.1 (but not Safari).
    response.set_cookie(
        "session",
        session,
        max_age=SESSION_LIFE,
        secure=True,
        httponly=True,
        samesite="Lax",
    )
    return response


@routes.get("/")
async def page(_: web.Request) -> web.FileResponse:
    """Return the page with the forms."""
    return web.FileResponse(Path(__file__).with_name("login.html"))


@routes.get("/me")
async def me(request: web.Request) -> web.Response:
    """Return the number of whoever is logged in."""
    try:
        session = request.cookies.get("session", "")
        number: str = request.app[SESSIONS].loads(session, max_age=SESSION_LIFE)
    except BadSignature:
        raise web.HTTPUnauthorized(text="not logged in") from None
    return web.json_response({"number": number})


@routes.post("/logout")
async def log_out(_: web.Request) -> web.Response:
    """End the session."""
    response = web.json_response({"status": "logged out"})
    response.del_cookie("session")
    return response


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
