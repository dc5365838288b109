"""What type checkers see of `verification`. Nothing here is ever run."""

from datetime import datetime
from typing import Annotated, Any, assert_type

from aiohttp import web
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import URLPattern, include, path
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from nxotp_async import Clock, NxOtpError, OtpClient, OtpMessage, RefusalReason, SendStatus
from nxotp_async.otel import instrument_verifier
from nxotp_async.stores import Store
from nxotp_async.verification import (
    Action,
    Check,
    CheckStatus,
    EventHook,
    Fallback,
    Limits,
    Verification,
    VerificationEvent,
    VerificationStatus,
    Verifier,
)
from nxotp_async.verification.aiohttp import VERIFIER, verification_routes
from nxotp_async.verification.aiohttp import problem_response as response_of_aiohttp
from nxotp_async.verification.django import problem_response as response_of_django
from nxotp_async.verification.django import verification_urls
from nxotp_async.verification.fastapi import get_verifier, problem_response, verification_router


def verifiers(client: OtpClient, store: Store, clock: Clock) -> None:
    Verifier(client, store=store, countries={"ID", "SG"})
    Verifier(client, store=store, countries="any", key="key", language_code="id", clock=clock, limits=Limits())
    Verifier(client, store=store, countries=["ID"], key=[b"new", "old"])


def on_event(event: VerificationEvent) -> None:
    assert_type(event.action, Action)
    assert_type(event.status, SendStatus | CheckStatus | None)
    assert_type(event.reason, RefusalReason | None)
    assert_type(event.number, str | None)
    assert_type(event.prefix, str | None)
    assert_type(event.country, str | None)
    assert_type(event.message_id, str | None)


async def send_elsewhere(message: OtpMessage) -> None:
    assert_type(message.code, str)


async def hooks(client: OtpClient, store: Store, sms: Fallback) -> None:
    for fallback in (sms, send_elsewhere):
        async with Verifier(client, store=store, countries="any", fallback=fallback, fallback_after=20) as verifier:
            verifier.add_hook(on_event)
            assert_type(verifier.hooks, tuple[EventHook, ...])
            instrument_verifier(verifier)
    Verifier(client, store=store, countries="any", on_event=on_event, on_low_conversion=lambda event: not event.country)
    Verifier(client, store=store, countries="any", test_numbers={"+999 555 0100": "123456"})


def limits() -> None:
    Limits(lifetime=300, checks=3, resend_after=[30, 60])
    Limits(number_per_hour=None, number_per_day=None, ip_per_hour=None, prefix_per_hour=None, country_per_hour=None)
    Limits(messages_per_day=None, min_prefix_conversion=None, min_country_conversion=0.1)


async def a_login(verifier: Verifier) -> None:
    started = await verifier.start("+62 812 3456 7890")
    await verifier.start("0812 3456 7890", region="ID", ip="192.0.2.1", language_code="id")
    assert_type(started, Verification)
    assert_type(started.id, str)
    assert_type(started.status, VerificationStatus)
    assert_type(started.expires_at, datetime)
    assert_type(started.resend_at, datetime | None)
    assert_type(started.checks_left, int)
    assert_type(started.message_id, str)
    assert_type(started.has_fallen_back, bool)
    assert_type(started.send_status, SendStatus | None)
    check = await verifier.check(started.id, "482913")
    assert_type(check, Check)
    assert_type(check.status, CheckStatus)
    assert_type(check.approved, bool)
    assert_type(check.number, str | None)
    assert_type(check.checks_left, int)
    assert_type(await verifier.resend(started.id), Verification)
    assert_type(await verifier.cancel(started.id), None)
    assert_type(await verifier.get(started.id), Verification | None)
    assert_type(verifier.clock, Clock)


def in_fastapi(app: FastAPI) -> None:
    async def log_in(request: Request, number: str) -> dict[str, Any]:
        return {"number": number}

    async def redirect(request: Request, number: str) -> RedirectResponse:
        return RedirectResponse("/")

    async def start(verifier: Annotated[Verifier, Depends(get_verifier)]) -> None: ...

    app.include_router(verification_router(log_in), prefix="/login")
    app.include_router(verification_router(redirect, region="ID"), prefix="/login")
    app.post("/")(start)
    app.exception_handler(NxOtpError)(problem_response)


def in_aiohttp(app: web.Application, verifier: Verifier, error: NxOtpError) -> None:
    async def log_in(request: web.Request, number: str) -> dict[str, Any]:
        return {"number": number}

    async def redirect(request: web.Request, number: str) -> web.Response:
        return web.Response()

    app[VERIFIER] = verifier
    app.add_routes(verification_routes("/login", log_in))
    assert_type(verification_routes("/login", redirect, region="ID"), list[web.RouteDef])
    assert_type(response_of_aiohttp(error), web.StreamResponse)


def in_django(verifier: Verifier, error: NxOtpError) -> None:
    async def log_in(request: HttpRequest, number: str) -> JsonResponse:
        return JsonResponse({"number": number})

    async def redirect(request: HttpRequest, number: str) -> dict[str, Any] | HttpResponse:
        return {}

    path("login/", include(verification_urls(lambda: verifier, log_in)))
    assert_type(verification_urls(lambda: verifier, redirect, region="ID"), list[URLPattern])
    assert_type(response_of_django(error), HttpResponseBase)


def in_any(error: NxOtpError, request: Request) -> None:
    assert_type(problem_response(request, error), Response)
