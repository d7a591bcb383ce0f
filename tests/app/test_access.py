"""Who may ask: keys, scopes, limits, and what is refused before anything is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import select, text

from app import catalog
from app.access import check_exposure, is_loopback, new_key
from app.catalog import SCOPES, Scope
from app.db import Database, open_database, transaction
from app.errors import NoKeyError
from app.main import create_app
from app.secret import Secret, load_secret
from app.settings import Settings
from app.tables import ApiKey
from engine.errors import ConfigurationError
from tests.app.conftest import BACKENDS, new_catalog, refusal, running, until
from tests.app.test_openapi import OPEN, OPENDSR, OPERATIONS, WEBHOOKS
from tests.app.test_predict_route import QUESTION

MakeKey = Callable[..., str]


@pytest.fixture
def make_key(database: Database, settings: Settings) -> MakeKey:
    """Makes keys as the command line does, and gives the headers that show them."""
    return maker(database, settings)


def maker(database: Database, settings: Settings) -> MakeKey:
    def make(*scopes: Scope, **limits: Any) -> str:
        prefix, key = new_key()
        with transaction(database) as session:
            hashed = load_secret(settings).key_hash(key)
            catalog.add_key(session, prefix=prefix, name="test", hash=hashed, scopes=scopes, **limits)
        return key

    return make


@pytest.fixture
def guarded(make_key: MakeKey, settings: Settings) -> Iterator[TestClient]:
    """An application whose catalog has a key."""
    make_key("admin")
    with running(settings) as client:
        yield client


@dataclass(frozen=True)
class Guarded:
    """An application whose catalog has a key, for tests that change nothing but make keys."""

    client: TestClient
    make_key: MakeKey


@pytest.fixture(scope="module", params=BACKENDS)
def lasting_guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with new_catalog(request, tmp_path_factory.mktemp("guarded")) as settings:
        database = open_database(settings)
        make_key = maker(database, settings)
        make_key("admin")
        with running(settings) as client:
            yield Guarded(client, make_key)
        database.dispose()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def call(client: TestClient, name: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """An operation, with nothing in its body and names that nobody has."""
    method, path, _ = OPERATIONS[name]
    response: httpx.Response = client.request(method, path.replace("{", "").replace("}", ""), headers=headers)
    return response


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - OPEN - OPENDSR - WEBHOOKS))
def test_an_operation_needs_a_key_with_its_scope(lasting_guarded: Guarded, name: str) -> None:
    client, make_key = lasting_guarded.client, lasting_guarded.make_key
    scope = OPERATIONS[name][2]["x-scope"]
    others: list[Scope] = [other for other in SCOPES if other != scope]
    refused = call(client, name)
    refusal(refused, 401)
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert scope in refusal(call(client, name, bearer(make_key(*others))), 403)["detail"]
    assert call(client, name, bearer(make_key(scope))).status_code not in {401, 403, 500}


@pytest.mark.parametrize("name", sorted(WEBHOOKS))
def test_a_key_is_no_credential_of_a_peer(lasting_guarded: Guarded, name: str) -> None:
    client, make_key = lasting_guarded.client, lasting_guarded.make_key
    assert call(client, name).status_code in {401, 422}
    path = OPERATIONS[name][1].replace("{", "").replace("}", "")
    body: dict[str, Any] = {"identity": {}, "request": {}}
    refused = client.post(path, json=body, headers=bearer(make_key(*SCOPES)))
    assert refused.status_code in {401, 422}, refused.text


@pytest.mark.parametrize("name", sorted(OPEN))
def test_how_the_service_does_is_told_to_everybody(lasting_guarded: Guarded, name: str) -> None:
    assert call(lasting_guarded.client, name).status_code in {200, 503}


@pytest.mark.usefixtures("sketch")
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_key_is_shown_in_either_header(guarded: TestClient, make_key: MakeKey, header: str) -> None:
    key = make_key("predict")
    value = f"Bearer {key}" if header == "Authorization" else key
    assert guarded.post("/predict", json=QUESTION, headers={header: value}).status_code == 200


@pytest.mark.parametrize(
    "shown",
    [
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer nvs_short",
        f"Bearer nvs_{'a' * 8}_{'b' * 43}",
        f"Bearer nvs_{'a' * 8}_{'b' * 44}",
        "Bearer \x00ä",
        "Bearer " + "x" * 10_000,
    ],
)
def test_what_isnt_a_key_is_refused(lasting_guarded: Guarded, shown: str) -> None:
    refusal(lasting_guarded.client.get("/datasets", headers={"Authorization": shown.encode()}), 401)


def test_a_key_whose_secret_part_differs_is_refused(lasting_guarded: Guarded) -> None:
    client, key = lasting_guarded.client, lasting_guarded.make_key("catalog:read")
    assert client.get("/datasets", headers=bearer(key)).status_code == 200
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    refusal(client.get("/datasets", headers=bearer(other)), 401)


def test_a_key_is_needed_from_when_the_first_is_made(
    client: TestClient, make_key: MakeKey, believed_seconds: float
) -> None:
    assert client.get("/datasets").status_code == 200
    make_key("predict")  # by another process, as the application sees it
    assert until(lambda: client.get("/datasets").status_code == 401, seconds=4 + believed_seconds)


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "10.0.0.7", "localhost.evil", ""])
def test_without_a_key_only_this_machines_own_names_are_answered(lasting_client: TestClient, host: str) -> None:
    refusal(lasting_client.get("/datasets", headers={"Host": host}), 401)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1:8000", "[::1]", "[::1]:8000"])
def test_without_a_key_this_machines_names_are_answered(lasting_client: TestClient, host: str) -> None:
    assert lasting_client.get("/datasets", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://127.0.0.1.example.org:8000"])
def test_without_a_key_a_page_of_another_site_can_have_nothing_done(lasting_client: TestClient, origin: str) -> None:
    """A browser sends a request without a body to anybody for any page, and only keeps the answer from it."""
    refusal(lasting_client.post("/sketches/tiny/rollback", headers={"Origin": origin}), 401)
    assert lasting_client.get("/datasets", headers={"Origin": "http://localhost:8000"}).status_code == 200


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_without_a_key_a_proxy_isnt_this_machine(lasting_client: TestClient, header: str) -> None:
    refusal(lasting_client.get("/datasets", headers={header: "203.0.113.9"}), 401)


def test_a_proxys_own_authorization_leaves_room_for_a_key(guarded: TestClient, make_key: MakeKey) -> None:
    shown = {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": make_key("catalog:read")}
    assert guarded.get("/datasets", headers=shown).status_code == 200


def test_a_revocation_that_was_answered_holds_whoever_asks_meanwhile(guarded: TestClient, make_key: MakeKey) -> None:
    admin = bearer(make_key("admin"))
    with ThreadPoolExecutor(4) as asking:
        for _ in range(5):
            key = make_key("catalog:read")
            stop = threading.Event()

            def ask(key: str = key, stop: threading.Event = stop) -> None:
                while not stop.is_set():
                    guarded.get("/datasets", headers=bearer(key))

            running = [asking.submit(ask) for _ in range(3)]
            assert guarded.delete(f"/keys/{key[4:12]}", headers=admin).status_code == 200
            after = [guarded.get("/datasets", headers=bearer(key)).status_code for _ in range(5)]
            stop.set()
            for one in running:
                one.result()
            assert set(after) == {401}


def test_a_service_for_strangers_doesnt_start_without_a_key(settings: Settings, make_key: MakeKey) -> None:
    exposed = settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(NoKeyError, match="neverseen keys create"), TestClient(create_app(exposed)):
        pass
    make_key("predict")
    with TestClient(create_app(exposed), base_url="http://example.org") as client:
        assert client.get("/healthz").status_code == 200
        refusal(client.get("/datasets"), 401)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "localhost.example.org"])
def test_an_address_that_others_reach_isnt_loopback(database: Database, host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(NoKeyError):
        check_exposure(database, host)


def test_a_revoked_key_is_refused_at_once_where_it_was_revoked(guarded: TestClient, make_key: MakeKey) -> None:
    admin, key = make_key("admin"), make_key("catalog:read")
    assert guarded.get("/datasets", headers=bearer(key)).status_code == 200
    answer = guarded.delete(f"/keys/{key[4:12]}", headers=bearer(admin)).json()
    assert answer["state"] == "revoked"
    assert "revoked" in refusal(guarded.get("/datasets", headers=bearer(key)), 401)["detail"]
    assert guarded.delete(f"/keys/{key[4:12]}", headers=bearer(admin)).json() == answer


def test_a_key_that_another_process_revoked_is_refused_soon(
    guarded: TestClient, make_key: MakeKey, database: Database, believed_seconds: float
) -> None:
    key = make_key("catalog:read")
    assert guarded.get("/datasets", headers=bearer(key)).status_code == 200
    with transaction(database) as session:
        catalog.revoke_key(session, key[4:12])
    assert until(lambda: guarded.get("/datasets", headers=bearer(key)).status_code == 401, seconds=4 + believed_seconds)


def test_a_key_ends_when_it_expires(guarded: TestClient, make_key: MakeKey) -> None:
    key = make_key("catalog:read", expires_at=datetime.now(UTC) + timedelta(days=1))
    assert guarded.get("/datasets", headers=bearer(key)).status_code == 200
    with time_machine.travel(datetime.now(UTC) + timedelta(days=2)):
        assert "expired" in refusal(guarded.get("/datasets", headers=bearer(key)), 401)["detail"]


def test_a_keys_last_use_is_kept_without_a_write_for_each(
    guarded: TestClient, make_key: MakeKey, database: Database
) -> None:
    admin, key = make_key("admin"), make_key("predict")
    for _ in range(3):
        guarded.post("/predict", json=QUESTION, headers=bearer(key))

    def last_used() -> datetime | None:
        with transaction(database, writes=False) as session:
            return session.scalars(select(ApiKey.last_used_at).where(ApiKey.prefix == key[4:12])).one()

    assert until(lambda: last_used() is not None)
    assert guarded.get("/keys", headers=bearer(admin)).json()["items"][0]["last_used_at"] is not None


def test_a_key_is_made_over_http_shown_once_and_stored_nowhere(
    guarded: TestClient, make_key: MakeKey, database: Database
) -> None:
    admin = bearer(make_key("admin"))
    made = guarded.post("/keys", json={"name": "backend", "scopes": ["predict", "catalog:read"]}, headers=admin)
    assert made.status_code == 201
    key = made.json()["key"]
    assert guarded.get("/datasets", headers=bearer(key)).status_code == 200
    listed = guarded.get("/keys", headers=admin)
    assert key not in listed.text
    assert "hash" not in listed.text
    assert key[13:] not in guarded.get("/audit?limit=1000", headers=admin).text
    with database.connect() as connection:
        assert key not in str(connection.execute(text("SELECT * FROM api_keys")).all())


@pytest.mark.parametrize(
    "body",
    [
        {"name": "backend"},
        {"name": "backend", "scopes": []},
        {"name": "backend", "scopes": ["everything"]},
        {"name": "Backend!", "scopes": ["predict"]},
        {"name": "backend", "scopes": ["predict"], "expires_days": 0},
        {"name": "backend", "scopes": ["predict"], "requests_per_minute": 0},
        {"name": "backend", "scopes": ["predict"], "decimals": -1},
        {"name": "backend", "scopes": ["predict"], "measurements": []},
    ],
)
def test_a_key_that_makes_no_sense_isnt_made(lasting_client: TestClient, body: dict[str, Any]) -> None:
    refusal(lasting_client.post("/keys", json=body), 422)
    assert lasting_client.get("/keys").json()["total"] == 0


def test_too_many_requests_of_a_key_are_refused_and_others_are_not(guarded: TestClient, make_key: MakeKey) -> None:
    limited, other = bearer(make_key("catalog:read", requests_per_minute=3)), bearer(make_key("catalog:read"))
    answers = [guarded.get("/datasets", headers=limited) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refusal(answers[-1], 429)
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 21
    assert guarded.get("/datasets", headers=other).status_code == 200


def test_the_settings_limit_holds_for_keys_without_their_own(settings: Settings, make_key: MakeKey) -> None:
    few = settings.model_copy(update={"requests_per_minute": 2})
    own, default = bearer(make_key("catalog:read", requests_per_minute=100)), bearer(make_key("catalog:read"))
    with TestClient(create_app(few), base_url="http://127.0.0.1") as client:
        assert [client.get("/datasets", headers=default).status_code for _ in range(3)] == [200, 200, 429]
        assert {client.get("/datasets", headers=own).status_code for _ in range(10)} == {200}


@pytest.mark.usefixtures("sketch")
def test_a_keys_answers_are_rounded_to_its_decimals(guarded: TestClient, make_key: MakeKey) -> None:
    exact = guarded.post("/predict", json=QUESTION, headers=bearer(make_key("predict"))).json()
    rounded = guarded.post("/predict", json=QUESTION, headers=bearer(make_key("predict", decimals=2))).json()
    for before, after in zip(exact["predictions"], rounded["predictions"], strict=True):
        assert after["estimate"] == round(before["estimate"], 2) != before["estimate"]
        assert after["interval"] == [round(bound, 2) for bound in before["interval"]]


@pytest.mark.usefixtures("sketch")
def test_a_key_with_a_list_of_measurements_may_ask_for_no_other(guarded: TestClient, make_key: MakeKey) -> None:
    key = bearer(make_key("predict", measurements=[QUESTION["measurements"][0]]))
    listed = QUESTION | {"measurements": QUESTION["measurements"][:1]}
    assert guarded.post("/predict", json=listed, headers=key).status_code == 200
    other = {"measurements": [{"kind": "loss", "text": "bob"}]}
    refusal(guarded.post("/predict", json=listed | other, headers=key), 403)
    batch = {"sketch": "tiny", "deletions": [{"delete": {"subset": "has-x"}}]}
    refusal(guarded.post("/predict/batch", json=batch | other, headers=key), 403)
    refusal(
        guarded.post("/attributions", json={"sketch": "tiny", "measurement": other["measurements"][0]}, headers=key),
        403,
    )


@pytest.mark.usefixtures("sketch")
@pytest.mark.parametrize("limits", [{"decimals": 2}, {"measurements": [{"kind": "loss", "text": "max"}]}])
def test_a_limited_key_gets_no_answers_that_go_around_its_limits(
    guarded: TestClient, make_key: MakeKey, limits: dict[str, Any]
) -> None:
    key = bearer(make_key("predict", **limits))
    drawn = {"sketch": "tiny", "delete": {"subset": "has-x"}, "count": 2}
    refusal(guarded.post("/samples", json=drawn, headers=key), 403)
    question = {"sketch": "tiny", "delete": {"subset": "has-x"}, "measurements": [{"kind": "loss", "text": "max"}]}
    refusal(guarded.post("/predict", json=question | {"verify": True}, headers=key), 403)
    refusal(guarded.get("/verifications/6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11", headers=key), 403)
    refusal(guarded.get("/verifications", headers=bearer(make_key("predict", "catalog:read", **limits))), 403)


@pytest.mark.usefixtures("sketch")
def test_texts_of_documents_are_shown_to_readers_of_the_catalog_only(guarded: TestClient, make_key: MakeKey) -> None:
    question = {"sketch": "tiny", "measurement": {"kind": "loss", "text": "max"}, "top": 3}
    without = guarded.post("/attributions", json=question, headers=bearer(make_key("predict"))).json()
    reading = guarded.post("/attributions", json=question, headers=bearer(make_key("predict", "catalog:read"))).json()
    shown = [one["text"] for one in (*reading["raising"], *reading["lowering"])]
    hidden = [one["text"] for one in (*without["raising"], *without["lowering"])]
    assert shown
    assert all(shown)
    assert hidden == [None] * len(shown)


def test_a_body_isnt_read_before_the_key_is_known(lasting_guarded: Guarded) -> None:
    assert lasting_guarded.client.post("/datasets", content=b"not JSON" * 100).status_code == 401


def test_the_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first, second = load_secret(settings), load_secret(settings)
    assert first.key_hash("a") == second.key_hash("a")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("content", [b"", b"\n", b"short"])
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigurationError, match="put the right one back"):
        load_secret(Settings(data_dir=tmp_path))


def test_a_secret_of_the_settings_is_taken_and_nothing_written(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secret=SecretStr("s" * 32))
    assert load_secret(settings).key_hash("a") == Secret(b"s" * 32).key_hash("a")
    assert list(tmp_path.iterdir()) == []


def test_digests_tell_deletion_sets_and_secrets_apart() -> None:
    one, other = Secret(b"a" * 32), Secret(b"b" * 32)
    digests = {
        one.deletion_digest("f", [1, 2]),
        one.deletion_digest("f", [1]),
        one.deletion_digest("g", [1, 2]),
        other.deletion_digest("f", [1, 2]),
        one.key_hash("f"),
    }
    assert len(digests) == 5
    assert all(len(digest) == 64 for digest in digests)
