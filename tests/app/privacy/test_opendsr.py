"""OpenDSR 2.0: what a controller gets, verified with the programs that controllers run, and what it can't have.

The points of the specification's checklist for processors have a test each, `test_checklist_…`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app import catalog
from app.db import Database, transaction
from app.errors import ConflictError, InvalidTextError
from app.main import create_app
from app.privacy import opendsr
from app.privacy.certificates import certificate_ends_at, check_certificate
from app.privacy.connections import (
    make_connection,
    open_connection,
    replace_certificate,
)
from app.privacy.opendsr import signature_headers
from app.schemas.connections import ConnectionSecrets
from app.secret import Secret
from app.settings import Settings
from app.tables import Delivery, ErasureRequest
from tests.app.conftest import about, refusal, until
from tests.app.privacy.conftest import ZENA
from tests.app.test_conformance import run
from tests.app.test_openapi import OPERATIONS

DOMAIN: Final = "opendsr.neverseen.example"
CONTROLLER: Final = "example_controller_id"
CREDENTIAL: Final = "nvc_what-the-controller-shows"
CALLBACK: Final = "https://controller.example/opendsr/callbacks"
STRANGER: Final = "someone.else@example.org"
"""To whom no document is linked."""

openssl_needed = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl isn't installed")
node_needed = pytest.mark.skipif(shutil.which("node") is None, reason="node isn't installed")

NODE: Final = """
const [body, certificate, signature] = process.argv.slice(1);
const fs = require('fs');
const verify = require('crypto').createVerify('SHA256').update(fs.readFileSync(body));
process.exit(verify.verify(fs.readFileSync(certificate), signature, 'base64') ? 0 : 1);
"""


@dataclass(frozen=True, kw_only=True)
class Papers:
    """A key, its chain, and the root that controllers trust."""

    key: str
    chain: str
    root: str

    @property
    def secrets(self) -> ConnectionSecrets:
        return ConnectionSecrets(private_key=self.key, certificate=self.chain)


def papers(domain: str = DOMAIN, **options: Any) -> Papers:
    """New ones for a domain, by an authority with an intermediate."""
    root = trustme.CA(key_type=trustme.KeyType.RSA)
    issued = root.create_child_ca(key_type=trustme.KeyType.RSA).issue_cert(
        domain, key_type=trustme.KeyType.RSA, **options
    )
    return Papers(
        key=issued.private_key_pem.bytes().decode(),
        chain="".join(blob.bytes().decode() for blob in issued.cert_chain_pems),
        root=root.cert_pem.bytes().decode(),
    )


@pytest.fixture(scope="module")
def of_authority() -> Papers:
    return papers()


@dataclass(frozen=True, kw_only=True)
class Controller:
    """A client of an application, with the credential of a connection."""

    client: TestClient
    credential: str = CREDENTIAL

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.credential}", **options.pop("headers", {})}
        response: httpx.Response = self.client.request(method, path, headers=headers, **options)
        return response

    def send(self, body: bytes, path: str = "/v2/requests", **headers: str) -> httpx.Response:
        return self("POST", path, content=body, headers={"Content-Type": "application/json", **headers})

    def status(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = self("GET", f"/v2/requests/{name}").json()
        return answer

    def ended(self, name: str, status: str) -> dict[str, Any]:
        """The status of a request, once it is so."""
        assert until(lambda: self.status(name)["request_status"] == status), self.status(name)
        return self.status(name)


def connect(database: Database, secret: Secret, one: Papers, *, name: str = "mparticle", **options: Any) -> None:
    """Write a connection to a controller."""
    credential = options.pop("credential", CREDENTIAL)
    values = {
        "domain": DOMAIN,
        "controller_id": CONTROLLER,
        "results_base_url": "https://neverseen.example",
        "allowed_hosts": ["controller.example", "controller.example.org"],  # the latter is the document's
        **options,
    }
    with transaction(database) as session:
        make_connection(
            session,
            secret,
            name=name,
            protocol="opendsr",
            options=values,
            secrets=one.secrets,
            credential=credential,
        )


@pytest.fixture
def connected(database: Database, secret: Secret, of_authority: Papers) -> Papers:
    """The papers of a connection of the catalog."""
    connect(database, secret, of_authority)
    return of_authority


@pytest.fixture
def controller(idle: TestClient, connected: Papers) -> Controller:
    """A controller of an application that works on no request."""
    assert connected
    return Controller(client=idle)


@pytest.fixture
def served(desk: TestClient, connected: Papers) -> Controller:
    """A controller of an application that works on requests."""
    assert connected
    return Controller(client=desk)


def asking(email: str = ZENA, **changed: Any) -> dict[str, Any]:
    """The fields of a request; those that are None are left out."""
    fields = {
        "regulation": "gdpr",
        "subject_request_id": str(uuid4()),
        "subject_request_type": "erasure",
        "submitted_time": "2026-01-31T15:00:00Z",
        "subject_identities": [{"identity_type": "email", "identity_value": email, "identity_format": "raw"}],
        "api_version": "2.0",
        "status_callback_urls": [CALLBACK],
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def written(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def sent(controller: Controller, **changed: Any) -> str:
    """The id of a request that was taken."""
    fields = asking(**changed)
    answer = controller.send(written(fields))
    assert answer.status_code == 201, answer.text
    name: str = fields["subject_request_id"]
    return name


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error of a refusal in OpenDSR's shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    [error] = response.json().values()
    assert set(error) == {"code", "message", "errors"}
    assert error["code"] == status
    assert error["message"] == error["errors"][0]["message"]
    for one in error["errors"]:
        assert set(one) == {"domain", "reason", "message"}
        assert all(one.values())
    assert len(response.content) < 4_000
    return dict(error)


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """What a controller does with what is signed, with the programs that controllers run."""

    folder: Path

    def openssl(self, one: Papers, body: bytes, signature: str) -> bool:
        """`openssl verify` of the chain, the name with it, then `openssl dgst -verify` of the signature."""
        first, *issuers = x509.load_pem_x509_certificates(one.chain.encode())
        files = {
            "root": one.root.encode(),
            "leaf": first.public_bytes(Encoding.PEM),
            "issuers": b"".join(issuer.public_bytes(Encoding.PEM) for issuer in issuers),
            "body": body,
            "signature": base64.b64decode(signature, validate=True),
        }
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        chained = self._run(
            "openssl", "verify", "-CAfile", "root", "-untrusted", "issuers", "-verify_hostname", DOMAIN, "leaf"
        )
        key = subprocess.run(
            ["openssl", "x509", "-in", "leaf", "-noout", "-pubkey"], cwd=self.folder, capture_output=True, check=True
        )
        (self.folder / "key").write_bytes(key.stdout)
        return chained and self._run("openssl", "dgst", "-sha256", "-verify", "key", "-signature", "signature", "body")

    def node(self, one: Papers, body: bytes, signature: str) -> bool:
        """`crypto.createVerify('SHA256')`."""
        (self.folder / "body").write_bytes(body)
        (self.folder / "chain").write_text(one.chain)
        return self._run("node", "-e", NODE, "body", "chain", signature)

    def _run(self, *command: str) -> bool:
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    folder = tmp_path / "verifier"
    folder.mkdir()
    return Verifier(folder=folder)


Signed = tuple[bytes, Mapping[str, str]]


def signed_answers(controller: Controller) -> dict[str, Signed]:
    """Every kind of answer that is signed."""
    fields, old = asking(), asking(regulation=None)
    name, old_name = fields["subject_request_id"], old["subject_request_id"]
    answers = {
        "receipt": controller.send(written(fields)),
        "receipt again": controller.send(written(fields)),
        "status": controller("GET", f"/v2/requests/{name}"),
        "status by its other address": controller("GET", f"/v2/status/{name}"),
        "cancellation": controller("DELETE", f"/v2/requests/{name}"),
        "old receipt": controller.send(written(old), "/v1/opengdpr_requests"),
        "old status": controller("GET", f"/v1/opengdpr_requests/{old_name}"),
        "old cancellation": controller("DELETE", f"/v1/opengdpr_requests/{old_name}"),
    }
    assert [one.status_code for one in answers.values()] == [201, 201, 200, 200, 202, 201, 200, 202]
    return {kind: (one.content, one.headers) for kind, one in answers.items()}


def signed_callbacks(database: Database, secret: Secret) -> dict[str, Signed]:
    """Every callback that was written, with the headers that it is sent with."""
    with transaction(database, writes=False) as session:
        rows = session.scalars(
            select(Delivery).where(Delivery.kind == "opendsr_callback").order_by(Delivery.number)
        ).all()
        opened = open_connection(catalog.get_connection(session, "mparticle"), secret)
        bodies = {row.id: row.body.encode() for row in rows}
    return {name: (body, signature_headers(opened, body)) for name, body in bodies.items()}


# The checklist for processors.


def test_checklist_1_new_requests_are_validated_and_processed(served: Controller) -> None:
    fields = asking()
    assert refused(served.send(written({**fields, "subject_request_id": "1"})))["errors"][0]["reason"] == "invalid"
    answer = served.send(written(fields))
    assert answer.status_code == 201
    assert served.ended(fields["subject_request_id"], "completed")["results_count"] == 1


def test_checklist_2_a_status_tells_the_state_and_the_expected_time(served: Controller) -> None:
    name = sent(served)
    first = served.status(name)
    last = served.ended(name, "completed")
    for one in (first, last):
        assert one["controller_id"] == CONTROLLER
        assert one["subject_request_id"] == name
        assert one["request_status"] in {"pending", "in_progress", "completed"}
        assert one["api_version"] == "2.0"
        due = datetime.strptime(one["expected_completion_time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert timedelta(days=29) < due - datetime.now(UTC) <= timedelta(days=30)
    assert served("GET", f"/v2/status/{name}").json() == last


def test_checklist_3_a_pending_request_can_be_cancelled_and_no_other(
    controller: Controller, database: Database
) -> None:
    name = sent(controller)
    first = controller("DELETE", f"/v2/requests/{name}")
    assert first.status_code == 202
    assert set(first.json()) == {"controller_id", "received_time", "subject_request_id", "api_version"}
    assert controller.status(name)["request_status"] == "cancelled"
    again = controller("DELETE", f"/v2/requests/{name}")
    assert (again.status_code, again.content) == (202, first.content)
    for state, more in (
        ("in_progress", {"started_at": datetime.now(UTC)}),
        ("completed", {"evidence": "{}", "finished_at": datetime.now(UTC)}),
        ("failed", {"failure": "why", "finished_at": datetime.now(UTC)}),
    ):
        other = sent(controller)
        set_row(database, other, state=state, **more)
        assert refused(controller("DELETE", f"/v2/requests/{other}"))["errors"][0]["reason"] == "conflict"


@pytest.mark.usefixtures("believed_seconds")
def test_checklist_4_results_are_where_only_a_key_of_this_service_reads_them(
    served: Controller, database: Database, secret: Secret
) -> None:
    name = sent(served)
    place = served.ended(name, "completed")["results_url"]
    path = place.removeprefix("https://neverseen.example")
    assert path.startswith("/erasure-requests/")
    assert served.client.get(path).status_code == 200  # no key exists yet, and this machine itself asks
    with transaction(database) as session:
        catalog.add_key(session, prefix="abcdefgh", name="x", hash=secret.key_hash("x"), scopes=["privacy"])
    assert until(lambda: served.client.get(path).status_code == 401)
    refusal(served("GET", path), 401)  # nor is the controller's credential a key


def test_checklist_5_discovery_tells_certificate_identities_and_types(
    controller: Controller, connected: Papers
) -> None:
    answer = controller.client.get("/v2/discovery", headers={"Host": DOMAIN})
    assert answer.status_code == 200
    found = answer.json()
    assert set(found) == {
        "api_version",
        "supported_identities",
        "supported_subject_request_types",
        "processor_certificate",
    }
    assert found["supported_subject_request_types"] == ["erasure"]
    assert {"identity_type": "email", "identity_format": "md5"} in found["supported_identities"]
    assert len(found["supported_identities"]) == 11 * 4
    assert found["processor_certificate"] == f"https://{DOMAIN}/v2/certificate"
    pem = controller.client.get("/v2/certificate", headers={"Host": f"{DOMAIN.upper()}:443"})
    assert (pem.status_code, pem.text) == (200, connected.chain)
    assert pem.headers["content-type"] == "application/pem-certificate-chain"
    for path in ("/v2/discovery", "/v2/certificate"):
        assert refused(controller.client.get(path, headers={"Host": "other.example"}), 404)


def test_checklist_6_nothing_is_told_or_done_without_a_credential(controller: Controller) -> None:
    name = sent(controller)
    operations = (
        ("POST", "/v2/requests"),
        ("GET", f"/v2/requests/{name}"),
        ("GET", f"/v2/status/{name}"),
        ("DELETE", f"/v2/requests/{name}"),
        ("POST", "/v1/opengdpr_requests"),
        ("GET", f"/v1/opengdpr_requests/{name}"),
        ("DELETE", f"/v1/opengdpr_requests/{name}"),
    )
    others = (None, "Bearer wrong", "Basic !", f"Basic {base64.b64encode(b'a:b').decode()}")
    for (method, path), shown in product(operations, others):
        headers = {} if shown is None else {"Authorization": shown}
        answer = controller.client.request(method, path, headers=headers, content=written(asking()))
        with about((method, path, shown)):
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "x-opendsr-signature" not in answer.headers
            refused(answer, 401)
    assert controller.status(name)["request_status"] == "pending"


def test_checklist_6_a_credential_is_shown_as_bearer_or_as_password(controller: Controller) -> None:
    basic = base64.b64encode(f"anybody:{CREDENTIAL}".encode()).decode()
    assert controller.send(written(asking()), Authorization=f"Basic {basic}").status_code == 201
    assert controller.send(written(asking()), Authorization=f"bearer {CREDENTIAL}").status_code == 201


def test_checklist_6_another_controllers_request_isnt_there(
    controller: Controller, database: Database, secret: Secret, of_authority: Papers
) -> None:
    connect(database, secret, of_authority, name="other", credential="nvc_other", controller_id="other_id")
    other = Controller(client=controller.client, credential="nvc_other")
    fields = asking()
    name = fields["subject_request_id"]
    assert controller.send(written(fields)).status_code == 201
    for method in ("GET", "DELETE"):
        refused(other(method, f"/v2/requests/{name}"), 404)
    assert other.send(written(asking(STRANGER, subject_request_id=name))).json()["controller_id"] == "other_id"
    assert controller.status(name)["request_status"] == "pending"


@openssl_needed
def test_checklist_7_every_answer_verifies_with_openssl(
    controller: Controller, connected: Papers, verifier: Verifier
) -> None:
    for kind, (body, headers) in signed_answers(controller).items():
        assert headers["x-opendsr-processor-domain"] == DOMAIN
        assert verifier.openssl(connected, body, headers["x-opendsr-signature"]), kind
        assert not verifier.openssl(connected, body + b" ", headers["x-opendsr-signature"]), kind


@node_needed
def test_checklist_7_every_answer_verifies_with_node(
    controller: Controller, connected: Papers, verifier: Verifier
) -> None:
    for kind, (body, headers) in signed_answers(controller).items():
        assert verifier.node(connected, body, headers["x-opendsr-signature"]), kind
        assert not verifier.node(connected, body + b" ", headers["x-opendsr-signature"]), kind


@openssl_needed
def test_checklist_7_another_authoritys_chain_doesnt_verify(
    controller: Controller, connected: Papers, verifier: Verifier
) -> None:
    body, headers = signed_answers(controller)["receipt"]
    foreign = Papers(key=connected.key, chain=connected.chain, root=papers().root)
    assert not verifier.openssl(foreign, body, headers["x-opendsr-signature"])


def test_checklist_8_the_private_key_is_nowhere_but_sealed(
    controller: Controller, connected: Papers, settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lines = [line for line in connected.key.splitlines() if "PRIVATE KEY" not in line]
    answers = signed_answers(controller)
    told = [body + str(headers).encode() for body, headers in answers.values()]
    told += [
        controller.client.get(path, headers={"Host": DOMAIN}).content for path in ("/v2/discovery", "/v2/certificate")
    ]
    told += [controller.client.get("/connections").content, caplog.text.encode()]
    with transaction(database, writes=False) as session:
        row = catalog.get_connection(session, "mparticle")
        told += [row.sealed.encode(), json.dumps(row.options).encode()]
    told += [file.read_bytes() for file in settings.data_dir.rglob("*") if file.is_file()]
    assert len(told) > 12
    for content in told:
        assert not any(line.encode() in content for line in lines)


def test_checklist_9_callbacks_tell_each_change_to_every_address(
    served: Controller, database: Database, secret: Secret
) -> None:
    name = sent(served, status_callback_urls=[CALLBACK, f"{CALLBACK}/2", CALLBACK])
    served.ended(name, "completed")
    callbacks = [json.loads(body) for body, _ in signed_callbacks(database, secret).values()]
    for url in (CALLBACK, f"{CALLBACK}/2"):
        told = [one for one in callbacks if one["status_callback_url"] == url]
        assert [one["request_status"] for one in told] == ["pending", "in_progress", "completed"]
        for one in told:
            assert {**one, "status_callback_url": None} == {
                "controller_id": CONTROLLER,
                "expected_completion_time": served.status(name)["expected_completion_time"],
                "subject_request_id": name,
                "request_status": one["request_status"],
                "api_version": "2.0",
                "results_url": served.status(name)["results_url"] if one is told[-1] else None,
                "results_count": 1 if one is told[-1] else None,
                "extensions": {
                    DOMAIN: {"status": one["request_status"], **({"reason": "answered"} if one is told[-1] else {})}
                },
                "status_callback_url": None,
            }
    assert len(callbacks) == 6


def test_checklist_9_a_cancellation_is_told(controller: Controller, database: Database, secret: Secret) -> None:
    name = sent(controller)
    controller("DELETE", f"/v2/requests/{name}")
    controller("DELETE", f"/v2/requests/{name}")
    callbacks = [json.loads(body) for body, _ in signed_callbacks(database, secret).values()]
    assert sorted(one["request_status"] for one in callbacks) == ["cancelled", "pending"]


@openssl_needed
@node_needed
def test_checklist_9_every_callback_verifies(
    served: Controller, connected: Papers, database: Database, secret: Secret, verifier: Verifier
) -> None:
    served.ended(sent(served), "completed")
    callbacks = signed_callbacks(database, secret)
    assert len(callbacks) == 3
    for body, headers in callbacks.values():
        for name in ("OpenDSR", "OpenGDPR"):
            assert headers[f"X-{name}-Processor-Domain"] == DOMAIN
            assert verifier.openssl(connected, body, headers[f"X-{name}-Signature"])
            assert verifier.node(connected, body, headers[f"X-{name}-Signature"])


def test_checklist_10_addresses_begin_with_the_major_version(controller: Controller) -> None:
    document = controller.client.get("/openapi.json").json()["paths"]
    paths = {
        path
        for path, operations in document.items()
        if any("opendsr" in operation["tags"] for operation in operations.values())
    }
    assert {path.split("/")[1] for path in paths} == {"v1", "v2"}
    assert len(paths) == 7
    assert controller("GET", f"/requests/{uuid4()}").status_code == 404


def test_checklist_11_what_is_logged_and_recorded_holds_no_identity(
    served: Controller, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = sent(served)
    served.ended(name, "completed")
    with transaction(database, writes=False) as session:
        records = [repr(vars(row)) for row in catalog.list_records(session, limit=1000, offset=0).items]
    assert any("request.receive" in record and name in record for record in records)
    assert any("connection:mparticle" in record for record in records)
    assert "POST /v2/requests 201" in caplog.text
    assert ZENA not in caplog.text + "".join(records)


def test_checklist_12_identities_may_stand_in_our_extension(served: Controller) -> None:
    ids = [{"identity_type": "email", "identity_value": ZENA, "identity_format": "raw"}]
    name = sent(
        served, subject_identities=None, extensions={DOMAIN: {"subject_identities": ids}, "a.example": {"b": 1}}
    )
    assert served.ended(name, "completed")["results_count"] == 1
    others: list[Any] = [{}, {"other.example": {"subject_identities": ids}}, {DOMAIN: {}}, {DOMAIN: []}, None]
    for extensions in others:
        refused(served.send(written(asking(subject_identities=None, extensions=extensions))))


def test_checklist_13_erasure_has_a_process_and_other_types_are_refused(served: Controller, database: Database) -> None:
    for kind in ("access", "portability"):
        error = refused(served.send(written(asking(subject_request_type=kind))))
        assert error["errors"][0]["reason"] == "unsupported"
    name = sent(served)
    assert served.ended(name, "completed")["request_status"] == "completed"
    with transaction(database, writes=False) as session:
        row = catalog.get_request(session, "mparticle", name)
        assert (row.mode, row.identities, row.sealed) == ("erase", None, None)


@pytest.fixture
def counted_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are counted several times a second, and not every five seconds."""
    monkeypatch.setattr("app.privacy.figures._EVERY_SECONDS", 0.2)


@pytest.mark.usefixtures("counted_soon")
def test_checklist_14_figures_count_what_was_asked_and_how_long_the_certificate_lasts(
    controller: Controller, connected: Papers
) -> None:
    sent(controller)
    controller.send(b"{")

    def seconds_left() -> float:
        lines = controller.client.get("/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith("neverseen_certificate_seconds")] or ["none inf"]
        return float(line.split()[1])

    assert until(lambda: seconds_left() < math.inf)
    left = certificate_ends_at(connected.chain) - datetime.now(UTC)
    assert seconds_left() == pytest.approx(left.total_seconds(), abs=60)
    text = controller.client.get("/metrics").text
    assert 'neverseen_request_seconds_count{method="POST",route="/v2/requests",status="201"} 1.0' in text
    assert 'neverseen_problems_total{type="opendsr-400"} 1.0' in text


# Requests.


def test_a_receipt_holds_the_request_and_the_catalog_doesnt(
    controller: Controller, database: Database, settings: Settings
) -> None:
    body = written(asking())
    answer = controller.send(body)
    receipt = answer.json()
    assert list(receipt) == [
        "controller_id",
        "expected_completion_time",
        "received_time",
        "encoded_request",
        "subject_request_id",
    ]
    assert base64.b64decode(receipt["encoded_request"], validate=True) == body
    assert "\n" not in answer.headers["x-opendsr-signature"]
    signature = answer.headers["x-opendsr-signature"]
    with transaction(database, writes=False) as session:
        row = repr(vars(catalog.get_request(session, "mparticle", receipt["subject_request_id"])))
    for what in (ZENA, receipt["encoded_request"], signature):
        assert what not in row
    stored = b"".join(file.read_bytes() for file in settings.data_dir.rglob("*") if file.is_file())
    assert ZENA.encode() not in stored
    assert signature.encode() not in stored


def test_the_same_again_is_answered_byte_for_byte(controller: Controller, database: Database, secret: Secret) -> None:
    body = written(asking())
    first = controller.send(body)
    for path in ("/v2/requests", "/v2/requests", "/v1/opengdpr_requests"):
        again = controller.send(body, path)
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["x-opendsr-signature"] == first.headers["x-opendsr-signature"]
    assert len(signed_callbacks(database, secret)) == 1


def test_the_same_again_is_answered_byte_for_byte_when_it_is_done(served: Controller) -> None:
    fields = asking()
    first = served.send(written(fields))
    served.ended(fields["subject_request_id"], "completed")
    again = served.send(written(fields))
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["x-opendsr-signature"] == first.headers["x-opendsr-signature"]


def test_the_same_again_is_signed_with_the_key_of_then(
    controller: Controller, database: Database, secret: Secret, verifier: Verifier
) -> None:
    body, new = written(asking()), papers()
    first = controller.send(body)
    with transaction(database) as session:
        replace_certificate(session, secret, "mparticle", private_key=new.key, certificate=new.chain)
    again = controller.send(body)
    assert again.content == first.content
    assert again.headers["x-opendsr-signature"] != first.headers["x-opendsr-signature"]
    assert controller.client.get("/v2/certificate", headers={"Host": DOMAIN}).text == new.chain
    if shutil.which("openssl") is not None:
        assert verifier.openssl(new, again.content, again.headers["x-opendsr-signature"])


def test_another_body_under_the_same_id_is_refused(controller: Controller) -> None:
    fields = asking()
    first = controller.send(written(fields))
    for other in (
        {**fields, "regulation": "ccpa"},
        {**fields, "subject_identities": asking(STRANGER)["subject_identities"]},
        dict(reversed(fields.items())),  # another body, if not another question
    ):
        with about(other):
            assert refused(controller.send(written(other)))["errors"][0]["reason"] == "conflict"
            assert controller.send(written(fields)).content == first.content


def test_of_a_hundred_at_once_one_is_taken_and_all_are_answered_alike(
    controller: Controller, database: Database, secret: Secret
) -> None:
    body = written(asking())
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: controller.send(body), range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["x-opendsr-signature"] for answer in answers}) == 1
    assert len(signed_callbacks(database, secret)) == 1
    with transaction(database, writes=False) as session:
        assert session.scalar(select(func.count()).select_from(ErasureRequest)) == 1


def test_a_cancellation_that_races_the_work_wins_or_is_refused_never_both(served: Controller) -> None:
    ended = set()
    for _ in range(10):
        name = sent(served, email=STRANGER)
        answer = served("DELETE", f"/v2/requests/{name}")
        if answer.status_code == 202:
            assert served.status(name)["request_status"] == "cancelled"
        else:
            refused(answer)
            served.ended(name, "completed")
        ended.add(answer.status_code)
    assert ended <= {202, 400}


def test_nobody_found_is_completed_with_no_results(served: Controller) -> None:
    name = sent(served, email=STRANGER)
    last = served.ended(name, "completed")
    assert last["results_count"] == 0
    assert last["extensions"] == {DOMAIN: {"status": "completed", "reason": "no_match"}}


def test_ones_own_address_is_told_only_where_it_is_known(
    served: Controller, database: Database, secret: Secret, of_authority: Papers
) -> None:
    connect(database, secret, of_authority, name="other", credential="nvc_other", results_base_url=None)
    other = Controller(client=served.client, credential="nvc_other")
    last = other.ended(sent(other), "completed")
    assert last["results_url"] is None
    assert last["results_count"] == 1


@pytest.mark.parametrize("form", ["raw", "sha256", "sha1", "md5"])
@pytest.mark.parametrize("shape", ["list", "map"])
def test_identities_come_in_every_form_and_shape(served: Controller, form: str, shape: str) -> None:
    value = ZENA if form == "raw" else hashlib.new(form, ZENA.encode()).hexdigest()
    ids: Any = [{"identity_type": "email", "identity_value": value, "identity_format": form}]
    if shape == "map":
        ids = {"email": {"value": value, "encoding": form}}
    assert served.ended(sent(served, subject_identities=ids), "completed")["results_count"] == 1


def test_a_map_without_an_encoding_is_of_identities_in_clear(served: Controller) -> None:
    name = sent(served, subject_identities={"email": {"value": ZENA}})
    assert served.ended(name, "completed")["results_count"] == 1


def test_a_connections_own_words_for_types_are_understood_and_told(
    served: Controller, database: Database, secret: Secret, of_authority: Papers
) -> None:
    words = {"customer_mail": "email"}
    connect(database, secret, of_authority, name="other", credential="nvc_other", identity_types=words)
    other = Controller(client=served.client, credential="nvc_other")
    ids = [{"identity_type": "customer_mail", "identity_value": ZENA, "identity_format": "raw"}]
    assert other.ended(sent(other, subject_identities=ids), "completed")["results_count"] == 1
    refused(served.send(written(asking(subject_identities=ids))))
    found = served.client.get("/v2/discovery", headers={"Host": DOMAIN}).json()
    assert {"identity_type": "customer_mail", "identity_format": "raw"} in found["supported_identities"]


def test_the_expected_time_is_the_regulations(controller: Controller) -> None:
    for regulation, days in (("gdpr", 30), ("ccpa", 45)):
        receipt = controller.send(written(asking(regulation=regulation))).json()
        received, expected = (
            datetime.fromisoformat(receipt[name]) for name in ("received_time", "expected_completion_time")
        )
        assert receipt["received_time"].endswith("Z")
        assert expected - received == timedelta(days=days), regulation


def test_a_field_that_isnt_known_is_left_alone(controller: Controller) -> None:
    sent(controller, group_id="a", skip_waiting_period=True)


def test_a_time_of_rfc_3339_is_understood(controller: Controller) -> None:
    for time in ("2026-01-31T15:00:00.123456789+14:00", "2026-01-31t15:00:00z", "1000-01-01T00:00:00Z"):
        sent(controller, submitted_time=time)


# What failed.


def set_row(database: Database, name: str, **values: Any) -> None:
    with database.begin() as connection:
        connection.execute(update(ErasureRequest).where(ErasureRequest.caller_id == name).values(**values))


def test_what_failed_is_in_progress_later_and_says_so_under_our_domain(
    controller: Controller, database: Database, secret: Secret
) -> None:
    name = sent(controller)
    due = datetime.fromisoformat(controller.status(name)["expected_completion_time"])
    set_row(database, name, state="failed", failure="No sketch can be served.", finished_at=datetime.now(UTC))
    answer = controller.status(name)
    assert answer["request_status"] == "in_progress"
    assert datetime.fromisoformat(answer["expected_completion_time"]) - due == timedelta(days=45)
    assert answer["extensions"] == {DOMAIN: {"status": "failed", "reason": "not_answered"}}
    with transaction(database, writes=False) as session:
        row = catalog.get_request(session, "mparticle", name)
        opened = open_connection(catalog.get_connection(session, "mparticle"), secret)
        [message] = opendsr.messages(row, opened, secret.unseal(row.sealed or ""))
    assert json.loads(message.body) == {**answer, "status_callback_url": CALLBACK}


def test_what_is_tried_again_isnt_pending_again(controller: Controller, database: Database) -> None:
    name = sent(controller)
    set_row(database, name, started_at=datetime.now(UTC))
    assert controller.status(name)["request_status"] == "in_progress"
    refused(controller("DELETE", f"/v2/requests/{name}"))


# What is refused.


BROKEN: Final[dict[str, bytes]] = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "a string": b'"erase me"',
    "NUL": b"\0",
    "not UTF-8": b'{"regulation": "\xff"}',
    "NaN": b'{"regulation": NaN}',
    "half a surrogate pair": written(asking()).replace(b"controller.example", b"\\ud800"),
    "a byte order mark": b"\xef\xbb\xbf" + written(asking()),
    "deep": b"[" * 100_000,
    "deep where nothing is read": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long number": b'{"x": ' + b"9" * 10_000 + b"}",
}

WRONG: Final[dict[str, dict[str, Any]]] = {
    "no regulation": {"regulation": None},
    "unknown regulation": {"regulation": "hipaa"},
    "no id": {"subject_request_id": None},
    "capital letters": {"subject_request_id": "A7551968-D5D6-44B2-9831-815AC9017798"},
    "version 1": {"subject_request_id": "a7551968-d5d6-14b2-9831-815ac9017798"},
    "no variant": {"subject_request_id": "a7551968-d5d6-44b2-c831-815ac9017798"},
    "a line break behind it": {"subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798\n"},
    "no type": {"subject_request_type": None},
    "unknown type": {"subject_request_type": "rectification"},
    "no time": {"submitted_time": None},
    "a number for a time": {"submitted_time": 1_769_871_600},
    "no zone": {"submitted_time": "2026-01-31T15:00:00"},
    "no such day": {"submitted_time": "2026-02-31T15:00:00Z"},
    "no such offset": {"submitted_time": "2026-01-31T15:00:00+99:00"},
    "no identities": {"subject_identities": []},
    "an empty map": {"subject_identities": {}},
    "too many": {"subject_identities": asking()["subject_identities"] * 101},
    "unknown identity type": {
        "subject_identities": [{"identity_type": "passport", "identity_value": "A1", "identity_format": "raw"}]
    },
    "unknown format": {
        "subject_identities": [{"identity_type": "email", "identity_value": ZENA, "identity_format": "sha512"}]
    },
    "not a digest": {
        "subject_identities": [{"identity_type": "email", "identity_value": ZENA, "identity_format": "sha256"}]
    },
    "a NUL in it": {
        "subject_identities": [{"identity_type": "email", "identity_value": f"{ZENA}\0", "identity_format": "raw"}]
    },
    "a field too few": {"subject_identities": [{"identity_type": "email", "identity_value": ZENA}]},
    "an identity for a type": {"subject_identities": {ZENA: {"value": "x"}}},
    "an identity for a number": {"subject_identities": {ZENA: 5}},
    "a callback that isn't listed": {"status_callback_urls": ["https://elsewhere.example/"]},
    "one of this machine": {"status_callback_urls": ["http://127.0.0.1/"]},
    "one of a cloud": {"status_callback_urls": ["http://169.254.169.254/latest/meta-data"]},
    "one of a file": {"status_callback_urls": ["file:///etc/passwd"]},
    "one that isn't safe": {"status_callback_urls": ["http://controller.example/"]},
    "one with a password": {"status_callback_urls": ["https://controller.example@elsewhere.example/"]},
    "one with a NUL": {"status_callback_urls": ["https://controller.example/\0"]},
    "too many callbacks": {"status_callback_urls": [CALLBACK] * 11},
    "callbacks of another form": {"status_callback_urls": CALLBACK},
    "extensions of another form": {"extensions": [ZENA]},
    "a version of another form": {"api_version": 2.0},
}


def quiet(response: httpx.Response) -> None:
    """Nothing of a request is in its refusal."""
    for word in (ZENA, "passport", "hipaa", "elsewhere", "169.254", "passwd", "rectification", "sha512"):
        assert word not in response.text
    assert "x-opendsr-signature" not in response.headers


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("path", ["/v2/requests", "/v1/opengdpr_requests"])
def test_what_has_another_form_is_refused_without_a_word_of_it(
    controller: Controller, database: Database, path: str
) -> None:
    cases = BROKEN | {why: written(asking(**changed)) for why, changed in WRONG.items()}
    if path.startswith("/v1"):
        del cases["no regulation"]
    for why, body in cases.items():
        answer = controller.send(body, path)
        assert answer.status_code == 400, (why, answer.text)
        refused(answer)
        quiet(answer)
    with transaction(database, writes=False) as session:
        assert session.scalar(select(func.count()).select_from(ErasureRequest)) == 0


def test_a_refusal_says_which_fields_are_wrong(controller: Controller) -> None:
    error = refused(controller.send(written(asking(regulation=None, submitted_time="today"))))
    assert [(one["reason"], one["message"]) for one in error["errors"]] == [
        ("missing", "regulation is missing."),
        ("invalid", "submitted_time is a time of RFC 3339, such as 2026-01-31T15:00:00Z."),
    ]


def test_a_body_that_isnt_said_to_be_json_is_refused(controller: Controller) -> None:
    for said in ("text/plain", "application/x-www-form-urlencoded", "application/jsonl", ""):
        answer = controller.send(written(asking()), **{"Content-Type": said})
        assert refused(answer)["errors"][0]["reason"] == "contentType", said
    assert controller.send(written(asking()), **{"Content-Type": "application/json; charset=utf-8"}).status_code == 201


def test_an_unknown_id_isnt_found_and_one_that_isnt_an_id_is_refused(controller: Controller) -> None:
    for method in ("GET", "DELETE"):
        for path in ("/v2/requests", "/v1/opengdpr_requests"):
            refused(controller(method, f"{path}/{uuid4()}"), 404)
            for name in ("1", str(UUID(int=0)), str(uuid4()).upper(), "%00", f"{ZENA}", "a" * 5_000):
                answer = controller(method, f"{path}/{name}")
                refused(answer)
                quiet(answer)


def test_a_request_cant_be_changed(controller: Controller) -> None:
    name = sent(controller)
    for method in ("PUT", "PATCH"):
        for path in (f"/v2/requests/{name}", "/v2/requests"):
            assert refusal(controller(method, path, content=written(asking())), 405)


def test_what_is_too_large_is_refused_as_everywhere(settings: Settings, connected: Papers) -> None:
    app = create_app(settings.model_copy(update={"max_body_bytes": 1_000, "privacy_worker": False}))
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        controller = Controller(client=client)
        refusal(controller.send(b" " * 1_001), 413)
        sent(controller)


def test_strangers_bodies_arent_read(settings: Settings, connected: Papers) -> None:
    app = create_app(settings.model_copy(update={"privacy_worker": False}))
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        read = []

        def body() -> Iterator[bytes]:
            read.append(True)
            yield b"{"

        refused(client.post("/v2/requests", content=body(), headers={"Content-Type": "application/json"}), 401)
        refused(Controller(client=client, credential="wrong").send(b"{"), 401)


def test_a_disabled_connection_is_refused_and_not_discovered(controller: Controller, database: Database) -> None:
    name = sent(controller)
    with transaction(database) as session:
        catalog.disable_connection(session, "mparticle", "for a test")
    refused(controller("GET", f"/v2/requests/{name}"), 401)
    refused(controller.client.get("/v2/discovery", headers={"Host": DOMAIN}), 404)


def test_the_credential_of_another_protocol_is_refused(
    controller: Controller, database: Database, secret: Secret
) -> None:
    with transaction(database) as session:
        make_connection(
            session,
            secret,
            name="ketch",
            protocol="ketch",
            options={},
            secrets=ConnectionSecrets(),
            credential="nvc_ketch",
        )
    refused(Controller(client=controller.client, credential="nvc_ketch").send(written(asking())), 401)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_answers_are_as_declared(settings: Settings, linked: str, connected: Papers) -> None:
    """As for all other operations, in tests/app/test_conformance.py."""
    assert linked
    assert connected
    ours = {name for name, (_, _, operation) in OPERATIONS.items() if "opendsr" in operation["tags"]}
    app = create_app(settings.model_copy(update={"privacy_worker": False}))
    headers = {"Authorization": f"Bearer {CREDENTIAL}", "Host": DOMAIN}
    result = run(
        app,
        many=False,
        without=sorted(set(OPERATIONS) - ours),
        operations=[{"include-operation-id": name, "headers": headers} for name in sorted(ours)],
    )
    assert result.cases > 40
    assert set(result.statuses) == ours
    assert {200, 201, 202, 400} <= result.answered


# OpenGDPR.


def test_the_old_names_are_honoured(served: Controller) -> None:
    fields = asking(regulation=None, api_version="1.0")
    name = fields["subject_request_id"]
    answer = served.send(written(fields), "/v1/opengdpr_requests")
    assert answer.status_code == 201
    for header in ("Processor-Domain", "Signature"):
        assert answer.headers[f"x-opengdpr-{header}"] == answer.headers[f"x-opendsr-{header}"]
    assert served.ended(name, "completed")["request_status"] == "completed"
    old = served("GET", f"/v1/opengdpr_requests/{name}")
    assert old.json() == served.status(name)
    assert old.headers["x-opengdpr-signature"]
    new = served("GET", f"/v2/requests/{name}")
    assert "x-opengdpr-signature" not in new.headers


# Papers.


def test_a_key_and_its_chain_do(of_authority: Papers) -> None:
    check_certificate(of_authority.key, of_authority.chain, DOMAIN)
    wild = papers("*.neverseen.example")
    check_certificate(wild.key, wild.chain, DOMAIN)
    with pytest.raises(ConflictError, match="isn't for"):
        check_certificate(wild.key, wild.chain, f"a.{DOMAIN}")


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    locked = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


def self_signed(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAIN)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), critical=False)
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def test_papers_that_dont_do_are_refused_with_the_reason(of_authority: Papers) -> None:
    blocks = [
        f"{part}-----END CERTIFICATE-----\n" for part in of_authority.chain.split("-----END CERTIFICATE-----\n")[:-1]
    ]
    assert len(blocks) == 2
    key, other = rsa.generate_private_key(65537, 2048), papers("other.example")
    past = papers(not_after=datetime.now(UTC) - timedelta(days=1))
    future = papers(not_before=datetime.now(UTC) + timedelta(days=1), not_after=datetime.now(UTC) + timedelta(days=2))
    for private_key, certificate, why in (
        ("", of_authority.chain, "can't be read"),
        (pem(key, b"secret"), of_authority.chain, "without a password"),
        (pem(ec.generate_private_key(ec.SECP256R1())), of_authority.chain, "RSA key"),
        (pem(rsa.generate_private_key(65537, 1024)), of_authority.chain, "2048 bits"),
        (of_authority.key, "", "certificate can't be read"),
        (of_authority.key, of_authority.chain.replace("MII", "!!!"), "certificate can't be read"),
        (pem(key), of_authority.chain, "isn't that of the first certificate"),
        (of_authority.key, "".join(reversed(blocks)), "isn't that of the first certificate"),
        (of_authority.key, blocks[0] + other.chain, "didn't issue certificate 1"),
        (of_authority.key, of_authority.chain + other.root, "didn't issue certificate 2"),
        (pem(key), self_signed(key), "self-signed"),
        (other.key, other.chain, f"isn't for {DOMAIN}"),
        (past.key, past.chain, "isn't valid now"),
        (future.key, future.chain, "isn't valid now"),
    ):
        with pytest.raises(ConflictError, match=why) as refusal:
            check_certificate(private_key, certificate, DOMAIN)
        assert "BEGIN" not in str(refusal.value)


def test_a_chain_with_its_root_does(of_authority: Papers) -> None:
    check_certificate(of_authority.key, of_authority.chain + of_authority.root, DOMAIN)


def test_a_connection_isnt_made_with_papers_that_dont_do(database: Database, secret: Secret) -> None:
    with pytest.raises(ConflictError, match="isn't for"):
        connect(database, secret, papers("other.example"))
    with transaction(database, writes=False) as session:
        assert catalog.connections_of(session, "opendsr") == []


def test_nobody_is_told_completed_where_nothing_is_erased(
    database: Database, secret: Secret, of_authority: Papers
) -> None:
    with pytest.raises(InvalidTextError, match="erase"):
        connect(database, secret, of_authority, mode="predict")


# Callbacks, received.


@pytest.fixture
def listener() -> Iterator[tuple[str, list[tuple[Mapping[str, str], bytes]]]]:
    """The host of a server on this machine, and what it was sent."""
    got: list[tuple[Mapping[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((httpx.Headers(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join()


@openssl_needed
@node_needed
def test_a_controller_verifies_what_it_is_sent(
    desk: TestClient,
    database: Database,
    secret: Secret,
    of_authority: Papers,
    verifier: Verifier,
    listener: tuple[str, list[tuple[Mapping[str, str], bytes]]],
) -> None:
    host, got = listener
    connect(
        database,
        secret,
        of_authority,
        allowed_hosts=[host],
        allowed_networks=["127.0.0.0/8"],
        allow_http=True,
    )
    controller = Controller(client=desk)
    name = sent(controller, status_callback_urls=[f"http://{host}/callbacks"])
    controller.ended(name, "completed")
    assert until(lambda: len(got) >= 3)
    assert [json.loads(body)["request_status"] for _, body in got] == ["pending", "in_progress", "completed"]
    for headers, body in got:
        assert headers["Content-Type"] == "application/json"
        assert headers["X-OpenDSR-Processor-Domain"] == DOMAIN
        assert json.loads(body)["status_callback_url"] == f"http://{host}/callbacks"
        assert verifier.openssl(of_authority, body, headers["X-OpenDSR-Signature"])
        assert verifier.node(of_authority, body, headers["X-OpenDSR-Signature"])
        assert ZENA.encode() not in body
