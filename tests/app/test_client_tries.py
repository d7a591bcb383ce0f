"""What the client sends, when it sends it again, and what it says of answers that no service of ours gives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import httpx
import pytest

from app.client import (
    AsyncNeverseen,
    Deletion,
    Neverseen,
    NeverseenError,
    TooManyRequestsError,
    UnavailableError,
    loss,
    questions,
    transport,
)
from app.client.answers import ReadLines
from app.errors import BusyError, DeadlineError
from app.errors import TooManyRequestsError as RateError
from tests.app.servers import LINE, Said, refused, saying

MAX = [loss("max")]


def test_a_request_says_who_sends_it() -> None:
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    with saying(Said()) as tiny, Neverseen(f"{tiny.url}/under/", key="nvs_k", headers=headers) as neverseen:
        neverseen.healthz()
    [(method, path, sent, body)] = tiny.asked
    assert (method, path, body) == ("GET", "/under/healthz", b"")
    assert re.fullmatch(r"neverseen/\d+\.\d+\.\d+", sent["user-agent"])
    assert (sent["authorization"], sent["traceparent"]) == ("Bearer nvs_k", headers["traceparent"])


DATASET = Said(
    201,
    b'{"name": "d", "description": "", "fingerprint": "f", "vocabulary": "a", "document_count": 1, "unit_count": 1,'
    b' "has_subjects": false, "created_at": "2026-01-05T09:30:00Z"}',
)
BUSY, LATE, LOST = refused(BusyError), refused(DeadlineError), Said(None)
GATEWAY = Said(502, b"<html>Bad gateway\x1b[2J</html>", {"Content-Type": "text/html"})


def reading(neverseen: Neverseen) -> object:
    return neverseen.get_dataset("d")


def creating(neverseen: Neverseen) -> object:
    return neverseen.create_dataset("d", content="a")


@pytest.mark.parametrize(
    ("ask", "before", "tries"),
    [
        (reading, [BUSY, BUSY], 3),
        (reading, [LATE, GATEWAY, LOST], 4),
        (creating, [BUSY, BUSY], 3),
    ],
)
def test_what_is_refused_for_the_moment_is_asked_again(
    ask: Callable[[Neverseen], object], before: list[Said], tries: int
) -> None:
    with saying(*before, DATASET) as tiny, Neverseen(tiny.url) as neverseen:
        ask(neverseen)
    assert len(tiny.asked) == tries
    assert len({(method, path, body) for method, path, _, body in tiny.asked}) == 1


@pytest.mark.parametrize(
    ("ask", "said", "message"),
    [
        (creating, LATE, "Not now."),
        (creating, LOST, "broke off: RemoteProtocolError"),
        (creating, GATEWAY, 'Status 502 from something other than this service: "<html>Bad gateway\\u001b[2J</html>"'),
        (reading, refused(BusyError, retry_after=3600), "Not now."),
        (lambda n: n.healthz(), BUSY, "Not now."),
        (lambda n: n.rollback_version("s"), LOST, "broke off"),
        (lambda n: n.promote_version("s", 2, expected=1), LOST, "broke off"),
        (lambda n: n.predict("s", subset="x", measurements=MAX, verify=True), LOST, "broke off"),
    ],
)
def test_what_may_have_been_done_isnt_asked_again(ask: Callable[[Neverseen], object], said: Said, message: str) -> None:
    with (
        saying(said, DATASET) as tiny,
        Neverseen(tiny.url) as neverseen,
        pytest.raises(UnavailableError, match=re.escape(message)) as caught,
    ):
        ask(neverseen)
    assert len(tiny.asked) == 1
    assert caught.value.status == said.status


def test_the_service_is_asked_so_often_and_no_more() -> None:
    with saying(BUSY) as tiny, Neverseen(tiny.url, retries=2) as neverseen, pytest.raises(UnavailableError):
        reading(neverseen)
    assert len(tiny.asked) == 3


def test_a_service_that_has_a_request_wait_for_ever_isnt_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST_WAIT_SECONDS", 1.5)
    limited = refused(RateError, retry_after=1)
    with saying(limited) as tiny, Neverseen(tiny.url) as neverseen, pytest.raises(TooManyRequestsError):
        reading(neverseen)
    assert len(tiny.asked) == 2


def test_a_service_that_isnt_there_is_told() -> None:
    with saying(Said()) as tiny:
        pass
    with (
        Neverseen(tiny.url, retries=1) as neverseen,
        pytest.raises(UnavailableError, match=f"{tiny.url} can't be reached") as caught,
    ):
        creating(neverseen)
    assert (caught.value.status, caught.value.request_id) == (None, None)


def test_the_asynchronous_client_asks_again_and_no_more() -> None:
    async def asked() -> None:
        with saying(BUSY, LOST, DATASET) as tiny:
            async with AsyncNeverseen(tiny.url) as waiting:
                assert (await waiting.get_dataset("d")).name == "d"
            assert len(tiny.asked) == 3
        for said in (LOST, LATE):
            with saying(said, DATASET) as tiny:
                async with AsyncNeverseen(tiny.url) as waiting:
                    with pytest.raises(UnavailableError):
                        await waiting.create_dataset("d", content="a")
                assert len(tiny.asked) == 1

    asyncio.run(asked())


# What isn't known


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(200, b"<html>"), "The answer to get_dataset has a form that isn't known here."),
        (Said(500, b"\xff\xfe"), "Status 500 from something other than this service"),
        (Said(418, b"x" * 1000), '"' + "x" * 199 + "\\u2026"),
        (Said(307, b"", {"Location": "http://127.0.0.1:1/"}), "Status 307"),
        (Said(599, b"{}", {"Content-Type": "application/problem+json"}), 'service: "{}"'),
    ],
)
def test_an_answer_of_something_else_is_an_error_like_every_other(said: Said, message: str) -> None:
    with (
        saying(said) as tiny,
        Neverseen(tiny.url) as neverseen,
        pytest.raises(NeverseenError, match=re.escape(message)) as caught,
    ):
        reading(neverseen)
    assert (caught.value.status, caught.value.problem.status) == (said.status, said.status)
    assert caught.value.problem.type == "about:blank"


def test_an_error_of_the_service_names_the_request() -> None:
    said = refused(BusyError)
    with (
        saying(Said(said.status, said.body, said.headers | {"X-Request-ID": "abc"})) as tiny,
        Neverseen(tiny.url, retries=0) as neverseen,
        pytest.raises(UnavailableError) as caught,
    ):
        reading(neverseen)
    assert (str(caught.value), caught.value.request_id) == ("Not now. (request abc)", "abc")


@pytest.mark.parametrize(
    ("said", "message", "before"),
    [
        (Said(body=LINE % 0), "It ended after 1 of 2 answers.", 1),
        (Said(body=LINE % 0 + (LINE % 1)[:-1]), "It ended after 1 of 2 answers.", 1),
        (Said(body=LINE % 0 + LINE % 1 + LINE % 2), "There are more than the 2 answers asked for.", 2),
        (Said(body=LINE % 0 + LINE % 0), "Answer 0 comes at place 1.", 1),
        (Said(body=LINE % 0 + b"{}\n"), "The answer to predict_batch has a form that isn't known here.", 1),
        (Said(body=LINE % 0, headers={"Content-Length": "1000"}), "broke off", 1),
    ],
)
def test_a_batch_that_isnt_whole_is_an_error(said: Said, message: str, before: int) -> None:
    with saying(said) as tiny, Neverseen(tiny.url) as neverseen:
        deletions = [Deletion(subset="x"), Deletion(subset="y")]
        lines = neverseen.predict_batch("s", deletions=deletions, measurements=MAX)
        assert tiny.asked == []  # until the first is asked for
        assert [next(lines).index for _ in range(before)] == list(range(before))
        with pytest.raises(NeverseenError, match=re.escape(message)):
            next(lines)


@pytest.mark.parametrize("piece_bytes", [1, 7, 80, 1000])
def test_lines_are_read_wherever_they_are_cut(piece_bytes: int) -> None:
    content = b"".join(LINE.replace(b"null", '"a\u2028\x85b"'.encode(), 1) % index for index in range(5))
    lines = questions.predict_batch("s", deletions=[Deletion(subset="x")] * 5, measurements=MAX)
    read = ReadLines(lines, httpx.Response(200))
    pieces = [content[at : at + piece_bytes] for at in range(0, len(content), piece_bytes)]
    answers = [answer for piece in pieces for answer in read.take(piece)]
    read.end()
    assert [(one.index, one.id) for one in answers] == [(index, "a\u2028\x85b") for index in range(5)]
