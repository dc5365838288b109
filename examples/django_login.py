"""Login in Django, in any number of workers: a code is sent, checked, and a session begins.

A project in one file, without a database of its own. In another terminal: ``nxotp sandbox``. Set the
variables that it prints, then

    pip install ".[verification]" django uvicorn
    export NXOTP_VERIFICATION_KEY=$(openssl rand -hex 32) DJANGO_SECRET_KEY=$(openssl rand -hex 32)
    export NXOTP_STORE=memory://
    uvicorn --app-dir examples --lifespan off --factory django_login:make_application

and open http://127.0.0.1:8000/. What /login/start, /login/resend and /login/check take and answer:
docs/endpoints.md. For several workers, NXOTP_STORE is the URL of what they share: docs/deployment.md.
In production also set DJANGO_ALLOWED_HOSTS.
"""

import os
from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from nxotp_async import OtpClient
from nxotp_async.stores import store_from_url
from nxotp_async.verification import Verifier
from nxotp_async.verification.django import verification_urls


@cache
def get_verifier() -> Verifier:
    """Return the verifier of this process. Its connections are closed with the event loop."""
    client = OtpClient(deadline=8)  # seconds; a user is waiting
    return Verifier(client, store=store_from_url(), countries={"ID", "SG"})


async def log_in(request: HttpRequest, number: str) -> JsonResponse:
    """Begin the session of the user with this number."""
    await request.session.aflush()  # nobody may know the new session's cookie from before
    await request.session.aset("number", number)  # or: await alogin(request, the user)
    return JsonResponse({"status": "logged in"})


@require_GET
@ensure_csrf_cookie
async def page(_: HttpRequest) -> HttpResponse:
    """Return the page with the forms, which sends the cookie's token with each request."""
    return HttpResponse(Path(__file__).with_name("login.html").read_text(encoding="utf-8"))


@require_GET
async def me(request: HttpRequest) -> JsonResponse:
    """Return the number of whoever is logged in."""
    number = await request.session.aget("number")
    if number is None:
        return JsonResponse({"detail": "not logged in"}, status=401)
    return JsonResponse({"number": number})


@require_POST
async def log_out(request: HttpRequest) -> JsonResponse:
    """End the session."""
    await request.session.aflush()
    return JsonResponse({"status": "logged out"})


urlpatterns = [
    path("", page),
    path("me", me),
    path("logout", log_out),
    path("login/", include(verification_urls(get_verifier, log_in, region="ID"))),
]


def make_application() -> ASGIHandler:
    """Return the application. Nothing is made at import, before a test has set its variables."""
    if not settings.configured:  # Django can be configured once only in a process
        settings.configure(
            SECRET_KEY=os.environ["DJANGO_SECRET_KEY"],
            ALLOWED_HOSTS=os.environ.get("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost").split(","),
            ROOT_URLCONF=__name__,
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            # Browsers send the cookies over https only, and to 127.0.0.1 (but not Safari).
            SESSION_COOKIE_SECURE=True,
            CSRF_COOKIE_SECURE=True,
            MIDDLEWARE=[
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware",
            ],
        )
    get_verifier.cache_clear()
    get_verifier()  # do not start with wrong settings
    return get_asgi_application()
