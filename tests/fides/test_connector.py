"""The service, called by Fides' own connector and judged by its own schema: the package `ethyca-fides`, unchanged.

The connector runs in the package's own environment, .venv-fides, which `make test-fides` makes; without a server, a
database or Redis.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.db import Database, transaction
from app.settings import Settings
from app.tables import Delivery, ErasureRequest
from tests.app.conftest import until
from tests.app.privacy.conftest import ZENA
from tests.app.servers import Said, Tiny, saying, served
from tests.end_to_end.fides.server import ENVIRONMENT

PYTHON = ENVIRONMENT / "bin" / "python"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="Fides isn't installed: `make test-fides` makes .venv-fides, and runs this"
)


def fides(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the connector says of calls, one after the other."""
    script = Path(__file__).parent / "connector.py"
    ran = subprocess.run(
        [PYTHON, script], input=json.dumps(calls), capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4_000:]
    answers: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return answers


def connect(url: str, fake: Tiny, **options: Any) -> str:
    """Have a connection to Fides; what Fides shows there."""
    local = {"base_url": fake.url, "allow_http": True, "allowed_networks": ["127.0.0.0/8"]}
    body = {"name": "fides", "protocol": "fides", "options": local | options}
    return f"Bearer {httpx.post(f'{url}/connections', json=body).json()['credential']}"


def call(url: str, authorization: str, callback_type: str, *, email: str = ZENA, **more: Any) -> dict[str, Any]:
    """A call that Fides shall make."""
    place = f"{url}/integrations/fides/{callback_type.replace('_', '-')}"
    secrets = {"url": place, "authorization": authorization}
    return {"callback_type": callback_type, "email": email, "secrets": secrets, "action": "erasure", **more}


def test_fides_accepts_every_answer(settings: Settings, linked: str) -> None:
    assert linked
    with saying(Said(200)) as fake, served(settings) as url:
        known = connect(url, fake, wait_seconds=2)
        customer = {"customer": {"label": "Customer", "value": 81}}
        *accepted, other, stranger = fides([
            call(url, known, "pre", id="pri_ready"),
            call(url, known, "pre", id="pri_nobody", email="nobody@example.org"),
            call(url, known, "post", id="pri_ready"),
            call(url, known, "pre", id="pri_access", action="access"),
            call(url, known, "pre", id="pri_labelled", identity=customer),
            call(url, known, "pre_approval", id="pri_ready"),
            call(url, known, "pre", id="pri_ready", email="somebody.else@example.org"),
            call(url, "Bearer x", "pre", id="pri_ready"),
        ])  # fmt: skip
        assert [one["refused"] for one in accepted] == [None] * 6
        assert [one["halt"] for one in accepted] == [False] * 5 + [None]  # to the last Fides doesn't listen
        # What the person's request ends with: the status "error".
        assert other["refused"] == stranger["refused"] == "ClientUnsuccessfulException"
        assert until(lambda: bool(fake.asked))
        assert fake.asked[0][1] == "/api/v1/privacy-request/pri_ready/pre-approve/eligible"


def test_fides_accepts_that_it_has_to_wait(settings: Settings, linked: str, database: Database) -> None:
    assert linked
    with saying(Said(200)) as fake:
        with served(settings.model_copy(update={"privacy_worker": False})) as url:
            [answer] = fides([call(url, connect(url, fake), "pre", id="pri_1")])
        assert answer == {"halt": True, "refused": None}
        assert fake.asked == []
        with served(settings):
            assert until(lambda: bool(fake.asked))
        with transaction(database, writes=False) as session:
            assert session.scalars(select(ErasureRequest.state)).all() == ["completed"]
            assert session.scalars(select(Delivery.kind)).all() == ["fides_resume"]
