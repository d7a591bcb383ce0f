"""Persons whose identities are linked to documents of the sketch "tiny", and a report that is measured of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app import catalog
from app.db import Database, transaction
from app.main import create_app
from app.privacy.identities import Identity, identity_hashes
from app.secret import Secret, load_secret
from app.settings import Settings
from engine.measure import Measurement
from tests.app.conftest import NAMES, until

ZENA, XENA = "zena.zappa@example.org", "xena.xu@example.org"
"""Persons of a document each."""

EVERYBODY = "everybody@example.org"
"""To whom all documents are linked."""


@pytest.fixture
def secret(settings: Settings) -> Secret:
    """The secret of the installation."""
    return load_secret(settings)


def link(database: Database, secret: Secret, links: dict[str, list[int]], *, dataset: str = "names") -> None:
    """Link e-mail addresses to documents of a dataset without subjects."""
    with transaction(database) as session:
        catalog.add_links(
            session,
            catalog.get_dataset(session, dataset),
            (
                (str(number), identity_hashes(Identity(kind="email", value=value), secret))
                for value, numbers in links.items()
                for number in numbers
            ),
        )


@pytest.fixture
def linked(database: Database, secret: Secret, sketch: str) -> str:
    """The name of a sketch, of whose dataset some documents are persons', and which the report "default" measures."""
    texts = list(NAMES.texts)
    link(
        database,
        secret,
        {ZENA: [texts.index("zena")], XENA: [texts.index("xena")], EVERYBODY: list(range(len(texts)))},
    )
    with transaction(database) as session:
        catalog.set_report(
            session,
            name="default",
            sketch=catalog.get_sketch(session, sketch),
            measurements=[
                asdict(Measurement(text="max")),
                asdict(Measurement(text="zara")),
                asdict(Measurement(kind="next_token", prompt="z")),
            ],
            own_documents=2,
            confidence=0.9,
            materiality_nats=0.001,
            materiality_probability=0.001,
        )
    return sketch


@pytest.fixture
def idle(settings: Settings, linked: str) -> Iterator[TestClient]:
    """The running application, which takes requests and works on none."""
    assert linked
    app = create_app(settings.model_copy(update={"privacy_worker": False}))
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def desk(settings: Settings, linked: str) -> Iterator[TestClient]:
    """The running application, which works on requests."""
    assert linked
    with TestClient(create_app(settings), raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


def asked(email: str, *, id: str = "dsar-1", **more: Any) -> dict[str, Any]:
    """The body of a request for an e-mail address."""
    return {"id": id, "identities": [{"type": "email", "value": email}], **more}


def done(client: TestClient, request: str, *, seconds: float = 60) -> dict[str, Any]:
    """A request, once it is done."""
    answer: dict[str, Any] = {}

    def ended() -> bool:
        answer.update(client.get(f"/erasure-requests/{request}").json())
        return answer["state"] in ("completed", "cancelled", "failed")

    assert until(ended, seconds=seconds), answer
    return answer
