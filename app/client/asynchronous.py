"""The client for asyncio: what `blocking` has, awaited. A test holds the two together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

import httpx
from httpx_retries import RetryTransport

from app.client import privacy, questions, resources
from app.client.answers import ReadLines, answer_of, as_method, is_over, not_over, pauses
from app.client.errors import arriving, refusal_of
from app.client.operation import MOST_ITEMS, Lines, Operation, Pages
from app.client.transport import Service, check_answer_async
from app.schemas import Answer
from app.schemas.verifications import VerificationAnswer

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", bound=Answer)


def _asks(operation: Callable[P, Operation[T]]) -> Callable[Concatenate[AsyncNeverseen, P], Coroutine[Any, Any, T]]:
    """The method that sends an operation and returns its answer."""

    async def method(self: AsyncNeverseen, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.ask(operation(*args, **kwargs))

    return as_method(method, operation)


def _iterates(pages: Callable[P, Pages[Item]]) -> Callable[Concatenate[AsyncNeverseen, P], AsyncGenerator[Item]]:
    """The method that yields the items of a list, fetching page after page."""

    def method(self: AsyncNeverseen, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Item]:
        return self.items(pages(*args, **kwargs))

    return as_method(method, pages)


def _streams(lines: Callable[P, Lines[T]]) -> Callable[Concatenate[AsyncNeverseen, P], AsyncGenerator[T]]:
    """The method that yields the lines of an answer while they arrive."""

    def method(self: AsyncNeverseen, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
        return self.lines(lines(*args, **kwargs))

    return as_method(method, lines)


class AsyncNeverseen:
    """A Neverseen service, asked from an event loop, several requests at a time if you like.

    It is an asynchronous context manager; connections stay open until its end, or `aclose`. What it raises is what
    `Neverseen` does.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float = 70,
        retries: int = 4,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connects at the first request.

        Args:
            url: address of the service, such as "http://127.0.0.1:8000".
            key: an API key; None where the service needs none.
            timeout_seconds: for a request to be taken, and for each part of its answer to arrive. The service gives up
                by itself after NEVERSEEN_REQUEST_SECONDS, 60 by default.
            retries: how often a request is sent again, at most.
            headers: of every request, such as `traceparent` or `X-Request-ID`.
            transport: of httpx, for proxies and certificates of your own; retries are put around it.

        Raises:
            InvalidRequestError: the address isn't one of HTTP, or the key can't be one.
        """
        self._service = Service.at(url, key=key, timeout_seconds=timeout_seconds, retries=retries, headers=headers)
        self._http = httpx.AsyncClient(
            **self._service.options(), transport=RetryTransport(transport or httpx.AsyncHTTPTransport())
        )

    predict = _asks(questions.predict)
    predict_batch = _streams(questions.predict_batch)
    attribute = _asks(questions.attribute)
    check_calibration = _asks(questions.check_calibration)
    sample = _asks(questions.sample)
    list_verifications = _asks(questions.list_verifications)
    iterate_verifications = _iterates(questions.iterate_verifications)
    get_verification = _asks(questions.get_verification)

    list_datasets = _asks(resources.list_datasets)
    iterate_datasets = _iterates(resources.iterate_datasets)
    create_dataset = _asks(resources.create_dataset)
    get_dataset = _asks(resources.get_dataset)
    list_documents = _asks(resources.list_documents)
    iterate_documents = _iterates(resources.iterate_documents)
    list_units = _asks(resources.list_units)
    iterate_units = _iterates(resources.iterate_units)
    resolve_deletion = _asks(resources.resolve_deletion)
    list_subsets = _asks(resources.list_subsets)
    iterate_subsets = _iterates(resources.iterate_subsets)
    create_subset = _asks(resources.create_subset)
    get_subset = _asks(resources.get_subset)

    list_sketches = _asks(resources.list_sketches)
    iterate_sketches = _iterates(resources.iterate_sketches)
    get_sketch = _asks(resources.get_sketch)
    list_sketch_versions = _asks(resources.list_sketch_versions)
    iterate_sketch_versions = _iterates(resources.iterate_sketch_versions)
    get_sketch_version = _asks(resources.get_sketch_version)
    get_build = _asks(resources.get_build)
    promote_version = _asks(resources.promote_version)
    rollback_version = _asks(resources.rollback_version)
    retire_version = _asks(resources.retire_version)
    delete_version = _asks(resources.delete_version)

    create_erasure_request = _asks(privacy.create_erasure_request)
    list_erasure_requests = _asks(privacy.list_erasure_requests)
    iterate_erasure_requests = _iterates(privacy.iterate_erasure_requests)
    get_erasure_request = _asks(privacy.get_erasure_request)
    cancel_erasure_request = _asks(privacy.cancel_erasure_request)
    retry_erasure_request = _asks(privacy.retry_erasure_request)
    get_evidence = _asks(privacy.get_evidence)
    get_evidence_page = _asks(privacy.get_evidence_page)
    list_reports = _asks(privacy.list_reports)
    iterate_reports = _iterates(privacy.iterate_reports)
    set_report = _asks(privacy.set_report)
    remove_report = _asks(privacy.remove_report)
    list_connections = _asks(privacy.list_connections)
    iterate_connections = _iterates(privacy.iterate_connections)
    create_connection = _asks(privacy.create_connection)
    get_connection = _asks(privacy.get_connection)
    change_connection = _asks(privacy.change_connection)
    rotate_connection = _asks(privacy.rotate_connection)
    disable_connection = _asks(privacy.disable_connection)
    enable_connection = _asks(privacy.enable_connection)
    list_deliveries = _asks(privacy.list_deliveries)
    iterate_deliveries = _iterates(privacy.iterate_deliveries)
    get_delivery = _asks(privacy.get_delivery)
    replay_delivery = _asks(privacy.replay_delivery)

    list_keys = _asks(resources.list_keys)
    iterate_keys = _iterates(resources.iterate_keys)
    create_key = _asks(resources.create_key)
    revoke_key = _asks(resources.revoke_key)
    list_audit_records = _asks(resources.list_audit_records)
    iterate_audit_records = _iterates(resources.iterate_audit_records)

    healthz = _asks(resources.healthz)
    readyz = _asks(resources.readyz)
    metrics = _asks(resources.metrics)

    async def wait_for_verification(self, verification: UUID, *, timeout_seconds: float = 600) -> VerificationAnswer:
        """Look at a verification until it is finished, or has failed: `state` says which.

        Args:
            verification: its id, as the answer to the question gave it.
            timeout_seconds: how long to look.

        Raises:
            TimeoutError: it is neither after that time.
        """
        remaining = pauses(timeout_seconds)
        while not is_over(answer := await self.get_verification(verification)):
            if (pause := next(remaining, None)) is None:
                raise not_over(verification, timeout_seconds)
            await asyncio.sleep(pause)
        return answer

    async def ask(self, operation: Operation[T]) -> T:
        """Send an operation of `app.client.questions` or `app.client.resources`, as the methods above do."""
        with arriving(self._service.url):
            response = await self._http.request(**self._service.request(operation, check_answer_async))
        return answer_of(operation, response)

    async def items(self, pages: Pages[Item]) -> AsyncGenerator[Item]:
        """Yield the items of a list, fetching page after page."""
        offset, total = 0, 1
        while offset < total:
            page = await self.ask(pages(limit=MOST_ITEMS, offset=offset))
            for item in page.items:
                yield item
            offset, total = offset + MOST_ITEMS, page.total

    async def lines(self, lines: Lines[T]) -> AsyncGenerator[T]:
        """Yield the lines of an answer while they arrive."""
        with arriving(self._service.url):
            async with self._http.stream(**self._service.request(lines.operation, check_answer_async)) as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal_of(response)
                read = ReadLines(lines, response)
                async for content in response.aiter_bytes():
                    for line in read.take(content):
                        yield line
                read.end()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()
