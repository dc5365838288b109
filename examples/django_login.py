"""Login in Django: forms, asynchronous views, one client for the process. A project in one file.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install . django uvicorn
    uvicorn --app-dir examples --factory django_login:make_application

and open http://127.0.0.1:8000/. The HTTP status is 200 if the code was sent, 202 if it may arrive, 422
if it is not a phone number, and 503 if the code could not be sent. In production also set
DJANGO_SECRET_KEY and DJANGO_ALLOWED_HOSTS.
"""

import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.template import RequestContext, Template
from django.urls import path
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_POST
from logins import CODE_LIFE, Logins

from nxotp_async import InvalidMessageError, NxOtpError, OtpClient, OtpMessage, OutcomeUnknownError

PAGE = """<!doctype html><title>Login</title><p>{{ text }}</p>
{% if login %}<form method="post" action="/verify">{% csrf_token %}
<input type="hidden" name="login" value="{{login}}">
<input name="code" inputmode="numeric" autocomplete="one-time-code">
<button>Log in</button></form>{% endif %}
<form method="post" action="/code">{% csrf_token %}
<input name="number" type="tel"><button>Send code</button></form>"""

log = logging.getLogger(__name__)
logins = Logins()


def page(request: HttpRequest, text: str, *, status: int = 200, login: str = "") -> HttpResponse:
    """Return the page with this text, and with a field for the code if there is a login."""
    context = RequestContext(request, {"text": text, "login": login})
    return HttpResponse(Template(PAGE).render(context), status=status)


@require_GET
async def start(request: HttpRequest) -> HttpResponse:
    """Ask for a number."""
    return page(request, "Your number, with its country code:")


@require_POST
@sensitive_post_parameters("number")
@sensitive_variables("code", "message")
async def send_code(request: ASGIRequest) -> HttpResponse:
    """Send a code. Before this, limit how often each number and each IP address may ask for one."""
    code = f"{secrets.randbelow(1_000_000):06}"
    expires_at = datetime.now(UTC) + timedelta(seconds=CODE_LIFE)
    try:
        number = request.POST.get("number", "")
        message = OtpMessage(number, f"Your code is {code}", expires_at=expires_at)
    except InvalidMessageError as error:
        return page(request, str(error), status=422)
    status, text = 200, "The code was sent."
    try:
        await request.scope["state"]["client"].send(message)
    except OutcomeUnknownError:
        status, text = 202, "The code may arrive: wait a minute before you ask for another one."
    except NxOtpError as error:
        log.warning("code %s was not sent: %s", error.cus_message_id, error)
        return page(request, "The code could not be sent.", status=503)
    return page(request, text, status=status, login=logins.begin(message.to, code))


@require_POST
@sensitive_post_parameters("login", "code")
async def verify_code(request: HttpRequest) -> HttpResponse:
    """Verify a code."""
    login = request.POST.get("login", "")
    number = logins.verify(login, request.POST.get("code", ""))
    if number is None:
        return page(request, "A wrong or expired code.", status=401, login=login)
    return page(request, "You are logged in.")  # add here: await alogin(request, this number's user)


urlpatterns = [path("", start), path("code", send_code), path("verify", verify_code)]

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def configure() -> None:
    """Configure Django, which can be done once in a process."""
    settings.configure(
        SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(),
        ALLOWED_HOSTS=os.environ.get("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost").split(","),
        ROOT_URLCONF=__name__,
        # No view is exempt from CSRF protection: each form contains the token.
        MIDDLEWARE=[
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    )
    logging.basicConfig()


def make_application() -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    """Return the application. The client is not made at import, before a test has set its variables."""
    if not settings.configured:
        configure()
    django_app = get_asgi_application()
    client = OtpClient(deadline=8)  # seconds; a user is waiting

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve Django, which does not support the lifespan events of ASGI. So they are handled here.

        The client is closed in the event loop of its connections, after the last answer.
        """
        if scope["type"] != "lifespan":
            await django_app(scope, receive, send)
            return
        async with client:
            scope["state"]["client"] = client  # the server adds this state to the scope of every request
            await receive()  # lifespan.startup
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        await send({"type": "lifespan.shutdown.complete"})

    return application
