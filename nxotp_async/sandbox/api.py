"""The JSON API of the sandbox's page, for tests in any language, too: everything under ``/sandbox/``."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from itertools import count, islice
from pathlib import PurePath
from typing import Any, Final

import attrs
import orjson
from aiohttp import web

from ..checks import flag, number, optional, text
from ..look import STYLE
from ..signing import Credentials
from .descriptions import callback_json, request_json, rule_json, summary_json
from .faults import FaultPlan, FaultRule
from .inbox import Entry, Inbox
from .parameters import (
    FAULT_FIELDS,
    MAX_NUMBER,
    NUMBER,
    NUMBERS,
    STATUS,
    fault_in,
    field_of,
    fields_of,
    integer_in,
    number_in,
    query_of,
    seconds_in,
)
from .problems import SECURITY_HEADERS, Guard, ProblemError
from .pusher import Callback, CallbackPusher

__all__ = ["Api"]

_KEEP_ALIVE: Final = 15.0  # seconds without news after which a reader is told that there are none
_MAX_WAIT: Final = 60.0  # seconds
_MAX_RULES: Final = 100
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@attrs.frozen
class Api:
    """The handlers of the API, and of the page.

    Attributes:
        inbox: What has come.
        plan: The faults.
        credentials: The account's keys.
        clock: Seconds since the epoch.
        pusher: Returns what pushes the callbacks, or ``None`` if none are pushed.
        forget: Forgets the requests that the sandbox remembers beside the inbox.
        counts: Returns the counters.
        guard: Who may use it.
    """

    inbox: Inbox
    plan: FaultPlan
    credentials: Credentials
    clock: Callable[[], float]
    pusher: Callable[[], CallbackPusher | None]
    forget: Callable[[], object]
    counts: Callable[[], Mapping[str, int]]
    guard: Guard
    _session: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    _rule_numbers: Iterator[int] = attrs.field(factory=lambda: count(1), init=False)

    def add_to(self, app: web.Application) -> None:
        """Add the page and the API to the sandbox's application."""

        @web.middleware
        async def guarded(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
            return await self.guard(request, handler)

        async def page(request: web.Request) -> web.StreamResponse:
            return await self.guard(request, _file("index.html", "text/html"))

        api = web.Application(middlewares=[guarded])
        api.router.add_get("/requests", self.get_requests)
        api.router.add_get("/requests/{number:[1-9][0-9]{0,15}}", self.get_request)
        api.router.add_get("/messages", self.get_messages)
        api.router.add_get("/wait", self.wait)
        api.router.add_get("/callbacks", self.get_callbacks)
        api.router.add_post("/callbacks", self.add_callback)
        api.router.add_post("/callbacks/push", self.push_callbacks)
        api.router.add_post("/callbacks/drop", self.drop_callbacks)
        api.router.add_put("/callbacks/hold", self.hold_callbacks)
        api.router.add_get("/faults", self.get_faults)
        api.router.add_post("/faults", self.add_fault)
        api.router.add_delete("/faults", self.remove_faults)
        api.router.add_delete("/faults/{number:[1-9][0-9]{0,15}}", self.remove_fault)
        api.router.add_post("/clear", self.clear)
        api.router.add_get("/events", self.events)
        api.router.add_get("/counts", self.get_counts)
        api.router.add_get("/openapi.json", _file("openapi.json", "application/json"))
        api.router.add_get("/page/look.css", _answer(STYLE.encode(), "text/css"))
        for file in (files(__package__) / "page").iterdir():
            if (suffix := PurePath(file.name).suffix) in _TYPES:
                api.router.add_get(f"/page/{file.name}", _file(file.name, _TYPES[suffix]))
        app.router.add_get("/", page)
        app.add_subapp("/sandbox/", api)
        app.on_shutdown.append(self._let_readers_go)

    async def _let_readers_go(self, _: web.Application) -> None:
        self.inbox.close()

    # ------------------------------------------------------------------------------------------ requests

    async def get_requests(self, request: web.Request) -> web.Response:
        """Return the requests, the newest first."""
        return _json({"requests": self._list(request, sent=False)})

    async def get_messages(self, request: web.Request) -> web.Response:
        """Return the requests whose message was sent, the newest first."""
        return _json({"messages": self._list(request, sent=True)})

    def _list(self, request: web.Request, *, sent: bool) -> list[dict[str, Any]]:
        query = query_of(request, "to", "search", "after", "before", "limit")
        to = number_in(query)
        search = query.get("search", "").casefold()
        after, before = integer_in(query, "after", 0), integer_in(query, "before", MAX_NUMBER)
        limit = integer_in(query, "limit", 100, at_least=1, at_most=self.inbox.keep)

        def found() -> Iterator[dict[str, Any]]:
            for entry in self.inbox.newest(sent=sent):
                if entry.number <= after:
                    return
                if entry.number < before and to in (None, entry.request.to):
                    summary = summary_json(entry)
                    if not search or _contains(summary, search):
                        yield summary

        return [*islice(found(), limit)]

    async def get_request(self, request: web.Request) -> web.Response:
        """Return all that is known of a request."""
        query_of(request)
        entry = self.inbox.entry(int(request.match_info["number"]))
        if entry is None:
            raise ProblemError(404, "there is no such request, or it was forgotten")
        attempts = self.inbox.attempts(entry.request.cus_message_id) or [entry]
        message_id = entry.request.message_id
        callbacks = [] if message_id is None else self.inbox.callbacks(message_id)
        return _json(request_json(entry, attempts, callbacks, self.credentials))

    async def wait(self, request: web.Request) -> web.Response:
        """Return the newest message to a number, as soon as there is one."""
        query = query_of(request, "to", "after", "timeout")
        to = number_in(query)
        if to is None:
            raise ProblemError(400, "to is missing: the number whose message to wait for", field="to")
        after = integer_in(query, "after", 0)
        timeout = seconds_in(query, "timeout", 10.0, at_most=_MAX_WAIT)
        entry = await self.inbox.wait(lambda entry: entry.request.to == to, after, timeout)
        if entry is None:
            raise ProblemError(404, f"no message to this number has come within {timeout:g} s")
        return _json(summary_json(entry))

    async def get_counts(self, request: web.Request) -> web.Response:
        """Return the counters."""
        query_of(request)
        return _json(self.counts())

    async def clear(self, request: web.Request) -> web.Response:
        """Forget all requests and callbacks."""
        query_of(request)
        self.inbox.clear()
        self.forget()
        return web.Response(status=204)

    # ------------------------------------------------------------------------------------------ callbacks

    async def get_callbacks(self, request: web.Request) -> web.Response:
        """Return the callbacks, the oldest first."""
        query = query_of(request, "message_id")
        found = self.inbox.callbacks(query.get("message_id"))
        pusher = self.pusher()
        return _json(
            {
                "pushing": pusher is not None,
                "hold": pusher is not None and pusher.hold,
                "callbacks": [callback_json(callback) for callback in found],
            }
        )

    async def add_callback(self, request: web.Request) -> web.Response:
        """Push one more callback of a message."""
        fields = await fields_of(request, "message_id", "status", "forged")
        message_id = field_of(fields, "message_id", text)
        status = field_of(fields, "status", STATUS)
        is_forged = field_of(fields, "forged", flag, default=False)
        pusher = self._working_pusher()
        entry = self.inbox.message(message_id)
        if entry is None:
            raise ProblemError(404, "there is no message with this id, or it was forgotten", field="message_id")
        callback = pusher.push_new(entry.request.fields, message_id, status, is_forged=is_forged)
        if callback is None:
            raise ProblemError(409, "the message has no dr_webhook that callbacks may go to, and there is no webhook")
        return _json(callback_json(callback), status=201)

    async def push_callbacks(self, request: web.Request) -> web.Response:
        """Push callbacks in the given order."""
        callbacks = self._callbacks_of(await fields_of(request, "numbers"))
        pushed = self._working_pusher().push(callbacks)
        return _json({"callbacks": [callback_json(callback) for callback in pushed]})

    async def drop_callbacks(self, request: web.Request) -> web.Response:
        """Do not push callbacks that are held or waiting."""
        callbacks, pusher = self._callbacks_of(await fields_of(request, "numbers")), self._working_pusher()
        dropped = [callback for callback in callbacks if pusher.drop(callback)]
        if not dropped:
            raise ProblemError(409, "none of them is held or waiting", field="numbers")
        return _json({"callbacks": [callback_json(callback) for callback in dropped]})

    async def hold_callbacks(self, request: web.Request) -> web.Response:
        """Hold new callbacks until they are pushed, or do so no more."""
        hold = field_of(await fields_of(request, "hold"), "hold", flag)
        self._working_pusher().hold = hold
        self.inbox.tell("hold", 0, hold)
        return _json({"hold": hold})

    def _working_pusher(self) -> CallbackPusher:
        pusher = self.pusher()
        if pusher is None:
            raise ProblemError(409, "this sandbox pushes no callbacks: start it with --callbacks or --webhook")
        return pusher

    def _callbacks_of(self, fields: Mapping[str, Any]) -> list[Callback]:
        numbers = field_of(fields, "numbers", NUMBERS)
        found = [self.inbox.callback(each) for each in numbers]
        if None in found:
            raise ProblemError(404, "there is no such callback, or it was forgotten", field="numbers")
        return [callback for callback in found if callback is not None]

    # ------------------------------------------------------------------------------------------ faults

    async def get_faults(self, request: web.Request) -> web.Response:
        """Return the faults that are switched on."""
        query_of(request)
        return _json(self._faults())

    async def add_fault(self, request: web.Request) -> web.Response:
        """Switch a fault on."""
        fields = await fields_of(request, *FAULT_FIELDS)
        probability = field_of(fields, "probability", number(at_least=0, at_most=1), default=1.0)
        to = field_of(fields, "to", optional(NUMBER), default=None)
        rule = FaultRule(next(self._rule_numbers), fault_in(fields), probability, to)
        if len(self.plan.rules) >= _MAX_RULES:
            raise ProblemError(409, f"{_MAX_RULES} faults are switched on: switch some off")
        self.plan.rules[rule.number] = rule
        self._tell_faults()
        return _json(rule_json(rule), status=201)

    async def remove_fault(self, request: web.Request) -> web.Response:
        """Switch a fault off."""
        query_of(request)
        if self.plan.rules.pop(int(request.match_info["number"]), None) is None:
            raise ProblemError(404, "there is no such fault switched on")
        self._tell_faults()
        return web.Response(status=204)

    async def remove_faults(self, request: web.Request) -> web.Response:
        """Switch every fault off."""
        query_of(request)
        self.plan.rules.clear()
        self._tell_faults()
        return web.Response(status=204)

    def _faults(self) -> dict[str, Any]:
        return {"faults": [rule_json(rule) for rule in self.plan.rules.values()]}

    def _tell_faults(self) -> None:
        self.inbox.tell("faults", 0, self._faults()["faults"])

    # ------------------------------------------------------------------------------------------ events

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream what changes, as server-sent events."""
        query_of(request)
        response = web.StreamResponse(headers={**SECURITY_HEADERS, "Content-Type": "text/event-stream"})
        with self.inbox.reader() as news:
            await response.prepare(request)
            try:
                await response.write(b"retry: 1000\n" + _event("hello", self._hello()))
                while not news.is_over:
                    changes = [_change(kind, item) for kind, item in await news.wait(_KEEP_ALIVE)]
                    await response.write(_event("changes", changes) if changes else b": nothing new\n\n")
            except ConnectionError:
                pass  # the reader has gone
        return response

    def _hello(self) -> dict[str, Any]:
        pusher = self.pusher()
        return {
            "session": self._session,
            "now": self.clock(),
            "last_number": self.inbox.last_number,
            "keep": self.inbox.keep,
            "code_life": self.inbox.code_life,
            "pushing": pusher is not None,
            "hold": pusher is not None and pusher.hold,
            **self._faults(),
        }


def _change(kind: str, item: Any) -> dict[str, Any]:  # noqa: ANN401 - of several kinds
    if isinstance(item, Entry):
        item = summary_json(item)
    elif isinstance(item, Callback):
        item = callback_json(item)
    return {"kind": kind, "item": item}


def _event(name: str, value: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(value))


def _contains(summary: Mapping[str, Any], search: str) -> bool:
    texts = (summary[name] for name in ("to", "content", "cus_message_id", "message_id", "why"))
    return any(search in each.casefold() for each in texts if each)


def _json(value: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")


def _file(name: str, content_type: str) -> Callable[[web.Request], Any]:
    return _answer((files(__package__) / "page" / name).read_bytes(), content_type)


def _answer(body: bytes, content_type: str) -> Callable[[web.Request], Any]:
    async def get(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return get
