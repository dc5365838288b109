"""Login in FastAPI, in any number of workers: a code is sent, checked, and a session begins.

In another terminal: ``nxotp sandbox --webhook http://127.0.0.1:8000/nxcloud/``. Set the variables that
it prints, then

    pip install ".[verification]" fastapi itsdangerous uvicorn
    export NXOTP_VERIFICATION_KEY=$(openssl rand -hex 32) SESSION_KEY=$(openssl rand -hex 32)
    export NXOTP_STORE=memory://
    uvicorn --app-dir examples --factory fastapi_login:make_app

and open http://127.0.0.1:8000/. What /login/start, /login/resend and /login/check take and answer:
docs/endpoints.md. For several workers, NXOTP_STORE is the URL of what they share: docs/deployment.md.
In production also set NXOTP_DR_WEBHOOK=https://you.example/nxcloud/.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from starlette.middleware.sessions import SessionMiddleware

from nxotp_async import Credentials, OtpClient
from nxotp_async.receivers import AsgiReceiver, CallbackMiddleware
from nxotp_async.stores import store_from_url
from nxotp_async.tracking import DeliveryTracker
from nxotp_async.verification import Verifier
from nxotp_async.verification.fastapi import verification_router

router = APIRouter()


def make_app() -> FastAPI:
    """Return the application. Nothing is made at import, before a test has set its variables."""
    app = FastAPI(lifespan=lifespan)
    app.state.store = store_from_url()
    app.state.tracker = DeliveryTracker(app.state.store)
    app.include_router(verification_router(log_in, region="ID"), prefix="/login")
    app.include_router(router)
    # Browsers send the cookie over https only, and to 127.0.0.1 (but not Safari).
    app.add_middleware(SessionMiddleware, secret_key=os.environ["SESSION_KEY"], https_only=True)
    receiver = AsgiReceiver(app.state.tracker, Credentials.from_env())
    app.add_middleware(CallbackMiddleware, path="/nxcloud", receiver=receiver)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Do not start with a store that cannot be used. At the end, close all connections."""
    client = OtpClient(deadline=8, tracker=app.state.tracker)  # seconds; a user is waiting
    async with app.state.store, client:
        app.state.verifier = Verifier(client, store=app.state.store, countries={"ID", "SG"})
        yield


async def log_in(request: Request, number: str) -> dict[str, str]:
    """Begin the session of the user with this number."""
    request.session["number"] = number  # or the id of your user
    return {"status": "logged in"}


@router.get("/")
async def page() -> FileResponse:
    """Return the page with the forms."""
    return FileResponse(Path(__file__).with_name("login.html"))


@router.get("/me")
async def me(request: Request) -> dict[str, str]:
    """Return the number of whoever is logged in."""
    if "number" not in request.session:
        raise HTTPException(401, "not logged in")
    return {"number": request.session["number"]}


@router.post("/logout")
async def log_out(request: Request) -> dict[str, str]:
    """End the session."""
    request.session.clear()
    return {"status": "logged out"}
