"""The endpoints of a login, in every framework: one suite over real servers."""

import asyncio
import functools
import logging
import traceback
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Final

import aiohttp
import attrs
import django.http
import fastapi
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.test import override_settings
from django.urls import include, path
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from verifier_support import UNLIMITED, NewVerifier, code_of, wrong
from web_servers import aiohttp_server, impatient_uvicorn, uvicorn_server  # noqa: F401 - one is a fixture

import nxotp_async.verification.aiohttp as in_aiohttp
import nxotp_async.verification.django as in_django
import nxotp_async.verification.fastapi as in_fastapi
import nxotp_async.verification.http
from nxotp_async import ConfigurationError, NxOtpError, StoreError
from nxotp_async.sandbox import Fault, Sandbox
from nxotp_async.stores import MemoryStore
from nxotp_async.testing import FakeClock
from nxotp_async.verification import Verifier
from nxotp_async.verification.http import MAX_BODY, Endpoints

NUMBER: Final = "+62 812-3456-7890"
DIGITS: Final = "6281234567890"
TOKEN: Final = "t" * 32  # of Django's protection against CSRF
CSRF: Final = {"Cookie": f"csrftoken={TOKEN}", "X-CSRFToken": TOKEN}
REQUESTS: Final = {"fastapi": fastapi.Request, "aiohttp": web.Request, "django": django.http.HttpRequest}
RESPONSES: Final[Mapping[str, Callable[..., Any]]] = {
    "fastapi": lambda content, headers: JSONResponse(content, headers=headers),
    "aiohttp": lambda content, headers: web.json_response(content, headers=headers),
    "django": lambda content, headers: django.http.JsonResponse(content, headers=headers),
}
OnApproved = Callable[[Any, str], Awaitable[Any]]
Serve = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture(params=["fastapi", "aiohttp", "django"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    settings.configure(
        SECRET_KEY="of the tests",
        ALLOWED_HOSTS=["127.0.0.1"],
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        LOGGING_CONFIG=None,
        DEBUG_PROPAGATE_EXCEPTIONS=True,
    )


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture, sandbox: Sandbox) -> Iterator[None]:
    caplog.set_level(logging.DEBUG, "nxotp_async")
    yield
    for record in caplog.records:
        shown = f"{record.getMessage()} {vars(record)}"
        assert DIGITS not in shown
        assert not [message for message in sandbox.messages if message.otp and message.otp in shown]


@pytest.fixture
def serve(kind: str) -> Iterator[Serve]:
    """Returns what serves a login at /login."""

    def fastapi_app(verifier: Verifier, on_approved: OnApproved, region: str | None = None) -> Any:
        app = FastAPI()
        app.state.verifier = verifier
        app.include_router(in_fastapi.verification_router(on_approved, region=region), prefix="/login")
        return uvicorn_server(app)

    def aiohttp_app(verifier: Verifier, on_approved: OnApproved, region: str | None = None) -> Any:
        app, login = web.Application(), web.Application()
        app[in_aiohttp.VERIFIER] = verifier
        login.add_routes(in_aiohttp.verification_routes("", on_approved, region=region))
        app.add_subapp("/login", login)
        return aiohttp_server(app)

    with override_settings():

        def django_app(verifier: Verifier, on_approved: OnApproved, region: str | None = None) -> Any:
            urls = in_django.verification_urls(lambda: verifier, on_approved, region=region)
            settings.ROOT_URLCONF = types.ModuleType("urls")
            settings.ROOT_URLCONF.urlpatterns = [path("login/", include(urls))]
            return uvicorn_server(get_asgi_application(), lifespan="off")

        yield {"fastapi": fastapi_app, "aiohttp": aiohttp_app, "django": django_app}[kind]


@attrs.frozen
class Login:
    """A login that is served, and what has become of it.

    Attributes:
        url: Where.
        session: What asks it.
        approvals: The requests and numbers that the application was called with.
    """

    url: str
    session: aiohttp.ClientSession
    approvals: list[tuple[Any, str]]

    async def post(self, action: str, body: Any = None, **fields: Any) -> tuple[int, dict[str, Any]]:
        status, content, _ = await self.ask(action, body, **fields)
        return status, content

    async def ask(
        self, action: str, body: Any = None, content_type: str = "application/json", **fields: Any
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Return the status, the document and the headers of the answer; check what all answers have in common."""
        data = orjson.dumps(fields) if body is None else body
        headers = {**CSRF, "Content-Type": content_type}
        async with self.session.post(f"{self.url}/login/{action}", data=data, headers=headers) as answer:
            content = await answer.json(content_type=None)
            assert answer.headers["Cache-Control"] == "no-store"
            is_problem = answer.status >= 400
            assert answer.content_type == ("application/problem+json" if is_problem else "application/json")
            if is_problem:
                assert content["status"] == answer.status
                assert content["title"]
                assert answer.headers.get("Retry-After", "") == str(content.get("retry_after", ""))
                assert DIGITS[3:] not in str(content)
            return answer.status, content, answer.headers

    async def start(self, number: str = NUMBER, **fields: Any) -> str:
        status, content = await self.post("start", number=number, **fields)
        assert status == 200, content
        return str(content["id"])


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def store_url() -> str:
    return "memory://"


@pytest.fixture
async def verifier(new_verifier: NewVerifier) -> Verifier:
    return new_verifier()


NewLogin = Callable[..., AbstractAsyncContextManager[Login]]


@pytest.fixture
def new_login(serve: Serve, http: aiohttp.ClientSession, verifier: Verifier) -> NewLogin:
    """Returns a login at each call: of this verifier, answering this after an approval."""

    @asynccontextmanager
    async def new(verifier: Verifier = verifier, result: Any = None, **options: Any) -> AsyncIterator[Login]:
        approvals: list[tuple[Any, str]] = []

        async def log_in(request: Any, number: str) -> Any:
            approvals.append((request, number))
            return {"logged in": number} if result is None else result

        async with serve(verifier, log_in, **options) as url:
            yield Login(url, http, approvals)

    return new


@pytest.fixture
async def login(new_login: NewLogin) -> AsyncIterator[Login]:
    async with new_login() as login:
        yield login


# ---------------------------------------------------------------------------------------------- a login


async def test_the_right_code_calls_the_application_once(login: Login, sandbox: Sandbox, kind: str) -> None:
    status, started = await login.post("start", number=NUMBER)
    assert (status, {**started, "id": ""}) == (200, {"id": "", "expires_in": 300, "resend_in": 30, "checks_left": 5})
    code = code_of(sandbox, DIGITS)
    told = await login.post("check", id=started["id"], code=f"{code[:3]} {code[3:]}")
    assert told == (200, {"logged in": DIGITS})
    ((request, number),) = login.approvals
    assert isinstance(request, REQUESTS[kind])
    assert number == DIGITS
    again = await login.post("check", id=started["id"], code=code)
    assert (again[0], again[1]["reason"]) == (403, "spent")
    assert len(login.approvals) == 1


async def test_the_application_answers_as_it_likes(new_login: NewLogin, sandbox: Sandbox, kind: str) -> None:
    response = RESPONSES[kind]({"welcome": True}, {"Set-Cookie": "session=1"})
    async with new_login(result=response) as login:
        started = await login.start()
        status, content, headers = await login.ask("check", id=started, code=code_of(sandbox, DIGITS))
    assert (status, content, headers["Set-Cookie"]) == (200, {"welcome": True}, "session=1")


async def test_a_wrong_code_says_how_many_more_may_be_tried(login: Login, sandbox: Sandbox) -> None:
    started = await login.start()
    code = code_of(sandbox, DIGITS)
    for left in (4, 3, 2, 1, 0):
        status, content = await login.post("check", id=started, code=wrong(code))
        assert (status, content["reason"], content["checks_left"]) == (403, "wrong", left)
    status, content = await login.post("check", id=started, code=code)
    assert (status, content) == (403, {"title": "Forbidden", "status": 403, "reason": "spent"})
    assert not login.approvals


async def test_what_has_ended_or_never_was_is_not_approved(login: Login, sandbox: Sandbox, clock: FakeClock) -> None:
    started = await login.start()
    clock.advance(301)
    status, content = await login.post("check", id=started, code=code_of(sandbox, DIGITS))
    assert (status, content["reason"]) == (403, "expired")
    status, content = await login.post("check", id="never was", code="482913")
    assert (status, content["reason"]) == (403, "unknown")


async def test_the_code_is_sent_again_after_a_pause(login: Login, sandbox: Sandbox, clock: FakeClock) -> None:
    started = await login.start()
    clock.advance(0.5)
    status, content = await login.post("resend", id=started)
    assert (status, content["reason"], content["retry_after"]) == (429, "too_soon", 30)
    clock.advance(30)
    status, content = await login.post("resend", id=started)
    assert (status, content) == (200, {"id": started, "expires_in": 270, "resend_in": 60, "checks_left": 5})
    first, second = (message.otp for message in sandbox.messages)
    assert first == second
    status, content = await login.post("resend", id="never was")
    assert (status, content["reason"]) == (422, "not_pending")


async def test_after_the_last_resend_there_is_none(new_login: NewLogin, new_verifier: NewVerifier) -> None:
    limits = attrs.evolve(UNLIMITED, resend_after=())
    async with new_login(new_verifier(limits=limits)) as login:
        status, started = await login.post("start", number=NUMBER)
        assert (status, started["resend_in"]) == (200, None)
        status, content = await login.post("resend", id=started["id"])
        assert (status, content["reason"]) == (422, "no_resends_left")


async def test_a_request_says_the_region_and_the_language(new_login: NewLogin, sandbox: Sandbox) -> None:
    async with new_login(region="ID") as login:
        await login.start("0812 3456 7890", language_code="id")
        assert (sandbox.messages[0].to, sandbox.messages[0].fields["language_code"]) == (DIGITS, "id")
        status, content = await login.post("start", number="(415) 555-2671", region="US")
        assert (status, content["reason"]) == (422, "country")
        for field in ("region", "language_code"):
            status, content = await login.post("start", number=NUMBER, **{field: "XX"})
            assert (status, content["field"], content["reason"]) == (422, field, "unknown_value")


async def test_what_the_application_raises_leaves_with_its_frames_and_without_the_code(
    verifier: Verifier, sandbox: Sandbox
) -> None:
    async def fail(_: None, number: str) -> dict[str, Any]:
        raise NxOtpError("the application's own")

    started = await verifier.start(NUMBER)
    body = orjson.dumps({"id": started.id, "code": code_of(sandbox, DIGITS)})
    endpoints: Endpoints[None, None] = Endpoints(fail, None)
    with pytest.raises(NxOtpError) as caught:
        await endpoints.respond("check", verifier, None, content_type="application/json", body=body, ip=None)
    assert [entry.name for entry in caught.traceback][-2:] == ["respond", "fail"]
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown.stack[:] = [frame for frame in shown.stack if frame.filename == nxotp_async.verification.http.__file__]
    assert shown.stack
    assert code_of(sandbox, DIGITS) not in "".join(shown.format())


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("number", "reason"),
    [("+1 415 555 2671", "country"), ("+62 21 2345 6789", "not_mobile"), ("999100131026", "undeliverable")],
)
async def test_waiting_does_not_help_where_no_code_is_sent(number: str, reason: str, login: Login) -> None:
    status, content = await login.post("start", number=number)
    assert (status, content["reason"]) == (422, reason)


@pytest.mark.parametrize(
    "limit",
    ["number_per_hour", "number_per_day", "ip_per_hour", "prefix_per_hour", "country_per_hour", "messages_per_day"],
)
async def test_which_limit_is_reached_is_not_told(limit: str, new_login: NewLogin, new_verifier: NewVerifier) -> None:
    limits = attrs.evolve(UNLIMITED, **{limit: 1})  # type: ignore[arg-type] # it is one of the counts
    async with new_login(new_verifier(limits=limits)) as login:
        await login.start()
        status, content = await login.post("start", number=NUMBER)
    assert (status, content["reason"]) == (429, "limit")
    assert 3000 < content["retry_after"] <= 90_000


async def test_a_wrong_number_is_told_by_its_field_and_a_reason(login: Login, sandbox: Sandbox) -> None:
    status, content = await login.post("start", number="12")
    assert (status, content["field"], content["reason"]) == (422, "number", "wrong_length")
    assert content["detail"].startswith("number ")
    status, content = await login.post("start", number=f"{NUMBER} {NUMBER}")
    assert (status, content["field"]) == (422, "number")
    assert not sandbox.requests


@pytest.mark.parametrize("fault", [Fault.answer(9003), Fault.http(429, retry_after=7)], ids=["account", "throttled"])
async def test_what_is_not_the_persons_fault_is_told_as_such_and_logged(
    fault: Fault, login: Login, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.script(*[fault] * 3)
    status, content = await login.post("start", number=NUMBER)
    assert (status, content.pop("retry_after", None)) == (503, fault.retry_after)
    assert content == {"title": "Service Unavailable", "status": 503, "reason": "unavailable"}
    assert any(record.getMessage().startswith("a verification failed: ") for record in caplog.records)


async def test_an_outage_of_the_store_is_told(new_login: NewLogin, new_verifier: NewVerifier) -> None:
    class Away(MemoryStore):
        async def update(self, *args: Any, **options: Any) -> Any:
            raise StoreError("the store does not answer")

    async with new_login(new_verifier(store=Away())) as login:
        assert (await login.post("start", number=NUMBER))[0] == 503
        assert (await login.post("check", id="an id", code="482913"))[0] == 503


# ---------------------------------------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data; boundary=x"],
)
async def test_what_a_form_of_another_site_can_send_is_refused(content_type: str, login: Login) -> None:
    status, content, _ = await login.ask("start", content_type=content_type, number=NUMBER)
    assert (status, content["reason"]) == (415, "not_json")


async def test_a_content_type_may_name_a_charset(login: Login) -> None:
    status, _, _ = await login.ask("start", content_type="Application/JSON; charset=utf-8", number=NUMBER)
    assert status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"number"', b"\xff", b'{"number": "\\ud800"}', b"[" * MAX_BODY],
    ids=["empty", "half", "null", "list", "text", "not UTF-8", "surrogate", "deep"],
)
@pytest.mark.parametrize("action", ["start", "resend", "check"])
async def test_what_is_no_json_object_is_refused(action: str, body: bytes, login: Login, sandbox: Sandbox) -> None:
    status, content = await login.post(action, body)
    assert (status, content["reason"]) == (400, "not_json")
    assert not sandbox.requests


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_long_body_is_refused(chunked: bool, login: Login, sandbox: Sandbox) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield body[:100]
        yield body[100:]

    body = orjson.dumps({"number": NUMBER}).ljust(MAX_BODY + 1)
    status, content = await login.post("start", chunks() if chunked else body)
    assert (status, content["reason"]) == (413, "too_large")
    assert not sandbox.requests
    body = body[:MAX_BODY]
    assert (await login.post("start", chunks() if chunked else body))[0] == 200


async def test_a_field_of_the_wrong_type_takes_no_check(login: Login, sandbox: Sandbox) -> None:
    started = await login.start()
    code = code_of(sandbox, DIGITS)
    wrong_ones: list[tuple[dict[str, Any], str, str]] = [
        ({}, "id", "missing"),
        ({"id": started}, "code", "missing"),
        ({"id": started, "code": int(code)}, "code", "wrong_type"),
        ({"id": started, "code": None}, "code", "wrong_type"),
        ({"id": [started], "code": code}, "id", "wrong_type"),
    ]
    for fields, field, reason in wrong_ones:
        status, content = await login.post("check", **fields)
        assert (status, content["field"], content["reason"]) == (422, field, reason)
    for action, field in (("start", "number"), ("resend", "id")):
        status, content = await login.post(action, **{field: {"a": 1}})
        assert (status, content["field"], content["reason"]) == (422, field, "wrong_type")
    status, content = await login.post("check", id=started, code=wrong(code))
    assert content["checks_left"] == 4


async def test_only_posts_are_answered(login: Login) -> None:
    for action in ("start", "resend", "check"):
        async with login.session.get(f"{login.url}/login/{action}") as answer:
            assert answer.status == 405


async def test_a_browser_that_leaves_in_the_middle_starts_nothing(
    login: Login, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = login.url.removeprefix("http://").partition(":")
    head = "".join(f"{name}: {value}\r\n" for name, value in {**CSRF, "Content-Type": "application/json"}.items())
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /login/start HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: 99\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await login.start()
    assert len(sandbox.requests) == 1
    assert not [record for record in caplog.records if record.exc_info]


# ---------------------------------------------------------------------------------------------- mistakes of developers


async def test_an_address_that_the_server_does_not_know_limits_nobody_and_is_logged_once(
    new_verifier: NewVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    async def log_in(_: None, number: str) -> dict[str, Any]:
        return {}

    endpoints: Endpoints[None, None] = Endpoints(log_in, None)
    verifier = new_verifier(limits=attrs.evolve(UNLIMITED, ip_per_hour=1))
    body = orjson.dumps({"number": NUMBER})
    for ip in (None, "", "testclient"):
        answer = await endpoints.respond(
            "start", verifier, None, content_type="application/json", body=body, ip=ip
        )  # fmt: skip
        assert answer is not None
        assert answer.status == 200
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.endswith("ip_per_hour limits nobody")


def make(kind: str, on_approved: Any, region: Any = None) -> object:
    if kind == "fastapi":
        return in_fastapi.verification_router(on_approved, region=region)
    if kind == "aiohttp":
        return in_aiohttp.verification_routes("/login", on_approved, region=region)
    return in_django.verification_urls(lambda: None, on_approved, region=region)  # type: ignore[arg-type,return-value]


async def log_in(request: object, number: str) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("on_approved", [None, lambda request, number: {}, dict])
def test_what_cannot_be_awaited_is_refused_at_once(kind: str, on_approved: Any) -> None:
    with pytest.raises(ConfigurationError, match="on_approved must be an async function of a request and a number"):
        make(kind, on_approved)


def test_an_object_may_be_called_after_an_approval(kind: str) -> None:
    class LogIn:
        async def __call__(self, request: object, number: str) -> dict[str, Any]:
            return {}

    for on_approved in (log_in, LogIn(), functools.partial(log_in)):
        make(kind, on_approved)


@pytest.mark.parametrize("region", ["Indonesia", 62])
def test_a_region_that_is_none_is_refused_at_once(kind: str, region: object) -> None:
    with pytest.raises(ConfigurationError, match="region "):
        make(kind, log_in, region)


@pytest.mark.parametrize("wrong", [None, "a verifier"])
async def test_an_application_without_a_verifier_says_where_it_belongs(wrong: Any) -> None:
    request = fastapi.Request({"type": "http", "app": FastAPI()})
    request.app.state.verifier = wrong
    with pytest.raises(
        ConfigurationError, match=r"app\.state\.verifier is missing \(make the Verifier in the lifespan\)"
    ):
        in_fastapi.get_verifier(request)


async def test_an_aiohttp_application_without_a_verifier_says_where_it_belongs() -> None:
    (start, *_) = in_aiohttp.verification_routes("/login", log_in)
    with pytest.raises(ConfigurationError, match=r"app\[VERIFIER\] is missing \(make the Verifier in a cleanup_ctx\)"):
        await start.handler(make_mocked_request("POST", "/login/start", app=web.Application()))


# ---------------------------------------------------------------------------------------------- endpoints of your own


async def test_endpoints_of_your_own_answer_errors_alike(
    kind: str, verifier: Verifier, http: aiohttp.ClientSession
) -> None:
    def fastapi_app() -> Any:
        app = FastAPI()
        app.state.verifier = verifier
        app.add_exception_handler(NxOtpError, in_fastapi.problem_response)  # type: ignore[arg-type] # as Starlette has it

        @app.post("/")
        async def start(verifier: Annotated[Verifier, Depends(in_fastapi.get_verifier)]) -> None:
            await verifier.start("+1 415 555 2671")

        return uvicorn_server(app)

    def aiohttp_app() -> Any:
        async def start(_: web.Request) -> web.StreamResponse:
            try:
                await verifier.start("+1 415 555 2671")
            except NxOtpError as error:
                return in_aiohttp.problem_response(error)
            return web.Response()

        app = web.Application()
        app.add_routes([web.post("/", start)])
        return aiohttp_server(app)

    def django_app() -> Any:
        async def start(_: django.http.HttpRequest) -> django.http.HttpResponseBase:
            try:
                await verifier.start("+1 415 555 2671")
            except NxOtpError as error:
                return in_django.problem_response(error)
            return django.http.HttpResponse()

        settings.ROOT_URLCONF = types.ModuleType("urls")
        settings.ROOT_URLCONF.urlpatterns = [path("", start)]
        return uvicorn_server(get_asgi_application(), lifespan="off")

    make_app = {"fastapi": fastapi_app, "aiohttp": aiohttp_app, "django": django_app}[kind]
    with override_settings():
        async with make_app() as url, http.post(url, headers=CSRF) as answer:
            assert (answer.status, answer.content_type) == (422, "application/problem+json")
            assert (await answer.json(content_type=None))["reason"] == "country"


@pytest.mark.parametrize("kind", ["django"])
async def test_django_protects_the_endpoints_against_csrf(
    serve: Serve, verifier: Verifier, http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    async with serve(verifier, log_in) as url:
        for headers in ({}, {"Cookie": CSRF["Cookie"]}, {**CSRF, "X-CSRFToken": "x" * 32}):
            async with http.post(f"{url}/login/start", json={"number": NUMBER}, headers=headers) as answer:
                assert answer.status == 403
    assert not sandbox.requests


def test_the_routers_documentation_names_the_fields() -> None:
    app = FastAPI()
    app.include_router(in_fastapi.verification_router(log_in), prefix="/login")
    body = app.openapi()["paths"]["/login/check"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["required"] == ["id", "code"]
