"""A route without detours: its body is checked once, as it was sent, and its answer is written once.

FastAPI decodes a body and then checks the decoded objects, and what a function answers is checked again in a thread of
its own, and then written. Here the body is checked while it is decoded, and `as_json` makes the answer. Everything else
is FastAPI's: what a route depends on, and refusals, for which a body that has another form is read again its way.

A body with very many faults, such as keys that nothing knows, isn't read again: to tell each of them takes seconds, in
which nobody is served. A body is decoded on the event loop, since a thread that decodes lets nobody else run, either:
of 16 MiB of small numbers, in a batch, that takes less than half a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from app.schemas import Answer

_MOST_FAULTS: Final = 1_000


class DirectRoute(APIRoute):
    """For functions of one body that return what `as_json` makes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handler = super().get_route_handler()
        [body] = self.dependant.body_params
        form = body.field_info.annotation
        assert isinstance(form, type)
        assert issubclass(form, BaseModel)

        async def handler_of_direct(request: Request) -> Response:
            direct = _DirectRequest(form, request.scope, request.receive)
            try:
                return await handler(direct)
            except HTTPException:
                if direct.refusal is None:
                    raise
                raise direct.refusal from None  # which FastAPI took for a body that can't be read

        return handler_of_direct


class _DirectRequest(Request):
    """A request whose body is decoded to its form at once; FastAPI, which checks it, finds it checked."""

    def __init__(self, form: type[BaseModel], scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._expected = form
        self.refusal: RequestValidationError | None = None

    async def json(self) -> Any:
        """The body, of its form where it has it."""
        try:
            return self._expected.model_validate_json(await self.body())
        except ValidationError as error:
            if error.error_count() > _MOST_FAULTS:
                message = f"More than {_MOST_FAULTS:,} parts have the wrong form, such as keys that aren't known."
                self.refusal = RequestValidationError([{"type": "faults", "loc": ("body",), "msg": message}])
                raise self.refusal from None
        return await super().json()


def as_json(form: type[Answer], *, decimals: int | None = None, ascii: bool = False, **values: object) -> bytes:
    """An answer of a form, checked and written here.

    Args:
        form: what the operation declares as its answer.
        decimals: that numbers are rounded to; None is not at all.
        ascii: whether to escape all other characters, some of which many programs take for the end of a line.
        values: its fields; rows and other objects are taken apart.
    """
    answer = form.model_validate(values)
    if decimals is None:
        return answer.model_dump_json(ensure_ascii=ascii).encode()
    return json.dumps(_rounded(answer.model_dump(mode="json"), decimals), separators=(",", ":")).encode()


def _rounded(value: Any, decimals: int) -> Any:
    match value:
        case float():
            return round(value, decimals)
        case list():
            return [_rounded(item, decimals) for item in value]
        case dict():
            return {key: _rounded(item, decimals) for key, item in value.items()}
    return value
