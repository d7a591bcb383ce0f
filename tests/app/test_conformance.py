"""The application does what its OpenAPI document says, and nothing else: thousands of requests that schemathesis makes.

It draws requests that the document allows and requests that it doesn't, alone and in sequences, from a fixed seed, and
compares every answer with the document. What its own checks leave out is checked by `strict_answers`. The document's
examples work here: the catalog has the names that they have.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeAlias, cast

import jsonschema_rs
import pytest
import schemathesis
from schemathesis.engine import events, from_schema
from sqlalchemy import delete, func, select, update
from starlette.types import ASGIApp, Receive, Scope, Send

from app import catalog
from app.access import new_key
from app.catalog import SCOPES, Containing
from app.catalog import Scope as KeyScope
from app.db import Database, transaction
from app.main import create_app
from app.privacy.connections import make_connection
from app.problems import MEDIA_TYPE, Problem
from app.schemas.connections import ConnectionSecrets
from app.schemas.opendsr import RefusalAnswer
from app.secret import load_secret
from app.settings import Settings
from app.tables import Delivery, ErasureRequest, Table
from engine.configuration import FEWEST_ANCHORS
from engine.measure import Measurement
from engine.sketch import build
from engine.store import Artifact
from tests.app.conftest import NAMES, register
from tests.app.privacy.conftest import ZENA, link
from tests.app.privacy.work import job_worker, take
from tests.app.test_openapi import DOCUMENT, OPEN, OPENDSR, OPERATIONS, WEBHOOKS

pytestmark = [
    pytest.mark.parametrize("backend", ["sqlite"]),  # the document is the same for all of them
    # Hypothesis writes down what it drew, however long that is.
    pytest.mark.filterwarnings("ignore:Generating overly large repr:hypothesis.errors.HypothesisWarning"),
]

Case: TypeAlias = schemathesis.Case[Any]
Config: TypeAlias = dict[str, Any]

SEED: Final = 20261125
UNKNOWN_PREFIX: Final = "k7d2m9qa"
PEERS: Final = OPENDSR | WEBHOOKS
"""Operations for privacy backends, which show no key; they are asked in the tests of each protocol."""

KEYED: Final = set(OPERATIONS) - OPEN - PEERS

UNKNOWN_KEY: Final = f"nvs_{UNKNOWN_PREFIX}_{'b' * 43}"

WORDS: Final = ["names", "census-names", "has-x", "max", "ann", "xena", "jo", "x", "e", "1", "2"]
"""What the catalog and the model know: of texts that are drawn from all characters they would know none."""

ALLOWED: Final = ("2xx", "400", "401", "403", "404", "409")
"""How a request that the document allows may be answered. 400 is what a catalog or a sketch alone can tell, as whether
a text is in the vocabulary. What the document can tell is 422, which is never an answer to what it allows."""

NOT_ALLOWED: Final = ("400", "401", "403", "404", "405", "409", "422")
"""How one may be answered that it doesn't allow."""

NOT_ITS_ADDRESS: Final[Config] = {
    "include-operation-id": ["create_subset", "resolve_deletion"],
    "checks": {"ensure_resource_availability": {"enabled": False}},
}
"""A unit that the body names is unknown with 404, too: that doesn't say that the dataset just made isn't there."""

LINE: Final = jsonschema_rs.validator_for(
    {"$ref": "#/components/schemas/BatchAnswer", "components": {"schemas": DOCUMENT["components"]["schemas"]}}
)

few_or_many = pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.drill)], ids=["few", "many"])


@schemathesis.check
def strict_answers(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: Case) -> None:
    """JSON without NaN; a problem where it is a refusal, an undeclared one, too; lines of a batch as declared."""
    media_type = response.headers["content-type"][0]
    if response.status_code in {400, 401, 404} and media_type == "application/json":
        assert "opendsr" in case.operation.definition.raw["tags"]  # whose protocol has a shape of its own for these
        assert RefusalAnswer.model_validate_json(response.text).error.code == response.status_code
    elif response.status_code >= 400:
        assert media_type == MEDIA_TYPE
        assert Problem.model_validate_json(response.text).status == response.status_code
    elif media_type == "application/json":
        _parsed(response.text)
    elif media_type == "application/jsonl":
        lines = [_parsed(line) for line in response.text.removesuffix("\n").split("\n")]
        question = cast("dict[str, list[Any]]", case.body)
        assert [line["index"] for line in lines] == list(range(len(question["deletions"])))
        wrong = [error.message for line in lines for error in LINE.iter_errors(line)]
        assert not wrong, wrong


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} isn't JSON")

    return json.loads(text, parse_constant=refuse)


class Spared:
    """The application, from which a run can't take what it needs itself.

    What would change the sketch "names" for good goes to the sketch "spare", and what would revoke the key that is
    shown goes to one that there isn't.
    """

    def __init__(self, app: ASGIApp, prefix: str = UNKNOWN_PREFIX) -> None:
        self._app, self._key = app, f"/keys/{prefix}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in {"POST", "DELETE"}:
            path = scope["path"].replace("/sketches/names/", "/sketches/spare/")
            scope = {**scope, "path": f"/keys/{UNKNOWN_PREFIX}" if path == self._key else path}
        await self._app(scope, receive, send)


@dataclass
class Run:
    """What came of a run.

    Attributes:
        statuses: how often an operation, by its id, was answered with a status.
        failures: what didn't conform, the first time, with what was asked and answered.
    """

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        """How many requests were answered."""
        return sum(counted.total() for counted in self.statuses.values())

    @property
    def answered(self) -> set[int]:
        """All statuses that there were."""
        return {status for counted in self.statuses.values() for status in counted}

    @property
    def unsuccessful(self) -> set[str]:
        """Operations that never did what they are there for."""
        asked = set(OPERATIONS) - PEERS
        return {name for name in asked if not any(status < 300 for status in self.statuses[name])}


def run(
    app: ASGIApp,
    *,
    many: bool,
    without: Collection[str] = PEERS,
    config: Config | None = None,
    operations: Sequence[Config] = (),
    generation: Config | None = None,
    checks: Config | None = None,
    also_refused: tuple[str, ...] = (),
) -> Run:
    """Let schemathesis ask an application, and fail if an answer doesn't conform.

    Args:
        app: the application.
        many: whether to draw ten times as many requests, beside all that differ by a boundary of the document.
        without: ids of operations that aren't asked.
        config: of schemathesis, beside what all runs have.
        operations: the part of it about single operations.
        generation: the part of it about the requests.
        checks: the part of it about the answers.
        also_refused: statuses that every request may be answered with, too.
    """
    whole = {
        "seed": SEED,
        "base-url": "http://127.0.0.1",  # without a key, only this machine's own names are answered
        "continue-on-failure": True,
        "analysis": {"constants": {"enabled": False}},  # else a change of the code changes what is drawn
        "dictionaries": {"words": {"values": WORDS}},
        "phases": {"coverage": {"enabled": many}},  # beside the examples, the drawn ones, and sequences
        "generation": {
            "deterministic": True,
            "database": "none",
            "no-shrink": True,
            "max-examples": 40 if many else 4,
            "dictionaries": {"string": {"dictionary": "words", "probability": 0.3}},
            **(generation or {}),
        },
        "checks": {
            "positive_data_acceptance": {"expected-statuses": [*ALLOWED, *also_refused]},
            "negative_data_rejection": {"expected-statuses": [*NOT_ALLOWED, *also_refused]},
            **(checks or {}),
        },
        "operations": [*operations, NOT_ITS_ADDRESS, _one_of_both(also_refused)],
        **(config or {}),
    }
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=schemathesis.Config.from_dict(whole))
    schema.hook("map_body")(lambda context, body: with_whole_numbers(body))
    result = Run()
    for event in from_schema(schema.exclude(operation_id=sorted(without))).execute():
        _take(event, result)
    assert not result.failures, "\n\n".join(result.failures.values())
    return result


def _one_of_both(also_refused: Sequence[str]) -> Config:
    """The document can't tell that of two parameters only one may be given, as of contains and matches."""
    allowed = {"expected-statuses": [*ALLOWED, "422", *also_refused]}
    return {"include-operation-id": ["list_documents"], "checks": {"positive_data_acceptance": allowed}}


def with_whole_numbers(value: Any) -> Any:
    """The same JSON with 5 for 5.0: to JSON Schema it is one number, but none of a document, or version, here."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [with_whole_numbers(item) for item in value]
        case dict():
            return {key: with_whole_numbers(item) for key, item in value.items()}
    return value


def _take(event: events.EngineEvent, result: Run) -> None:
    match event:
        case events.FatalError():
            raise event.exception
        case events.NonFatalError():  # a crash: an application that is called in this process raises it
            result.failures.setdefault(f"{event.label} crashed", f"{event.label}: {event.value!r}")
        case events.EngineFinished():
            result.failures |= {failure.title: str(failure) for failure in event.failures}
        case events.ScenarioFinished():
            cases, interactions = event.recorder.cases, event.recorder.interactions
            for case, interaction in interactions.items():
                if interaction.response is not None:
                    operation = cases[case].value.operation.definition.raw["operationId"]
                    result.statuses[operation][interaction.response.status_code] += 1
            for case, checks in event.recorder.checks.items():
                for check in checks:
                    if check.failure_info is not None:
                        answer = interactions[case].response
                        shown = None if answer is None else (answer.status_code, answer.content[:500])
                        failure, asked = check.failure_info.failure, check.failure_info.code_sample
                        result.failures.setdefault(
                            f"{check.name} of {cases[case].value.operation.label}",
                            f"{check.name}: {failure.title}: {failure.message}\n{asked}\n{shown}",
                        )


@pytest.fixture(scope="module")
def versatile(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact that every kind of question can be asked."""
    wanted = replace(artifact.manifest.configuration, axes=True, pairs=True, anchors=FEWEST_ANCHORS)
    return build(NAMES, wanted, tmp_path_factory.mktemp("versatile") / "tiny")


@pytest.fixture
def served(settings: Settings, database: Database, versatile: Artifact, artifact: Artifact) -> Settings:
    """Settings whose catalog has what the document's examples name, and a sketch to spare."""
    with transaction(database) as session:
        dataset = catalog.add_dataset(session, name="census-names", documents=NAMES)
        catalog.add_subset(session, dataset=dataset, name="has-x", rule=Containing("x"))
        register(session, settings, dataset, versatile, sketch="names")
        for _ in range(4):
            register(session, settings, dataset, artifact, sketch="spare")
    file_evidence(settings, database)
    return settings.model_copy(update={"privacy_worker": False})  # what is drawn stays pending


def file_evidence(settings: Settings, database: Database) -> None:
    """A report, a connection, and a request with evidence that somebody was told of, as the examples name them."""
    secret = load_secret(settings)
    with transaction(database) as session:
        catalog.set_report(
            session,
            name="default",
            sketch=catalog.get_sketch(session, "names"),
            measurements=[asdict(Measurement(text="max"))],
            own_documents=1,
            confidence=0.9,
            materiality_nats=0.05,
            materiality_probability=0.01,
        )
        make_connection(
            session,
            secret,
            name="privacy-desk",
            protocol="webhook",
            options={"url": "https://privacy.example.org/events"},
            secrets=ConnectionSecrets(),
        )
    link(database, secret, {ZENA: [NAMES.texts.index("zena")]}, dataset="census-names")
    take(database, secret, ZENA)
    worker, close = job_worker(database, settings, secret)
    assert worker.work_one()
    close()
    with transaction(database) as session:
        session.execute(delete(Delivery).where(Delivery.number > 1))
        given_up = {"state": "dead", "finished_at": datetime.now(UTC)}  # so that it can be sent again
        session.execute(update(Delivery).values(id=example("delivery"), request_id=None, **given_up))
        session.execute(update(ErasureRequest).values(id=example("request_id")))


def example(parameter: str) -> str:
    """The example of a parameter of an address, in the document."""
    for _, _, operation in OPERATIONS.values():
        for one in operation.get("parameters", ()):
            if one["name"] == parameter:
                value: str = one["examples"]["demo"]["value"]
                return value
    raise AssertionError(parameter)


def key_for(settings: Settings, database: Database, *scopes: KeyScope, **limits: Any) -> tuple[str, str]:
    """A new key of the catalog: (prefix, key)."""
    prefix, key = new_key()
    with transaction(database) as session:
        hashed = load_secret(settings).key_hash(key)
        catalog.add_key(session, prefix=prefix, name="test", hash=hashed, scopes=scopes, **limits)
    return prefix, key


def showing(key: str) -> Config:
    """A configuration with which requests show a key, but where the check `ignored_auth` has them show none."""
    return {"auth": {"openapi": {"bearer": {"bearer": key}}}}


@few_or_many
def test_without_a_key_answers_are_as_declared(served: Settings, many: bool) -> None:
    result = run(
        Spared(create_app(served)),
        many=many,
        without=PEERS | {"create_key"},  # after which all the others would need one
        generation={"with-security-parameters": False},
        checks={"ignored_auth": {"enabled": False}},  # no key is needed: that is the point
    )
    assert result.cases > (2_000 if many else 150)
    if many:
        assert result.unsuccessful == {
            "create_key",
            "revoke_key",
            "retry_erasure_request",
        }  # there is none to be either


@few_or_many
def test_with_a_key_answers_are_as_declared(served: Settings, database: Database, many: bool) -> None:
    prefix, key = key_for(served, database, *SCOPES)
    result = run(Spared(create_app(served), prefix), many=many, config=showing(key))
    assert result.cases > (2_000 if many else 200)
    if many:
        assert result.unsuccessful == {"retry_erasure_request"}  # for none has failed


@few_or_many
def test_within_limits_answers_are_as_declared(served: Settings, database: Database, many: bool) -> None:
    """Of what is sent, of what is asked for, of how often, of how exactly it is answered."""
    narrow = {"max_body_bytes": 250, "max_units": 2, "max_measurements": 1}
    measurements = [{"kind": "loss", "text": "max"}]
    limits = {"requests_per_minute": 1_000, "decimals": 1, "measurements": measurements}
    prefix, key = key_for(served, database, *SCOPES, **limits)
    result = run(
        Spared(create_app(served.model_copy(update=narrow)), prefix),
        many=many,
        config=showing(key),
        also_refused=("413", "429"),
    )
    assert result.cases > (2_000 if many else 150)
    if many:
        assert {200, 201, 400, 403, 413, 422, 429} <= result.answered


@few_or_many
@pytest.mark.parametrize("shown", ["no key", "an unknown key", "a key without the scope"])
def test_what_isnt_allowed_is_refused_as_declared_and_not_done(
    served: Settings, database: Database, shown: str, many: bool
) -> None:
    key_for(served, database, *SCOPES)
    config = showing(UNKNOWN_KEY) if shown == "an unknown key" else {}  # "no key" is sometimes what never was one
    operations: list[Config] = []
    if shown == "a key without the scope":
        lacking = {one: key_for(served, database, *(scope for scope in SCOPES if scope != one))[1] for one in SCOPES}
        operations = [
            {"include-operation-id": name, "headers": {"Authorization": f"Bearer {lacking[operation['x-scope']]}"}}
            for name, (_, _, operation) in OPERATIONS.items()
            if name in KEYED
        ]
    before = rows(database)
    result = run(create_app(served), many=many, config=config, operations=operations)
    assert rows(database) == before
    expected = 403 if "scope" in shown else 401
    for name in KEYED:
        # What is drawn may have another method than those of its address, or a slash where an address has none.
        assert set(result.statuses[name]) <= {401, expected, 404, 405}, name
        assert result.statuses[name][expected], name
    assert result.cases > (2_000 if many else 100)


def rows(database: Database) -> Mapping[str, int | None]:
    """How many rows the tables have. Whatever is done leaves one in the audit."""
    with database.connect() as connection:
        counted = ((name, select(func.count()).select_from(table)) for name, table in Table.metadata.tables.items())
        return {name: connection.scalar(count) for name, count in counted}
