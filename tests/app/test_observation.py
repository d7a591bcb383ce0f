"""What is seen of requests: ids, headers, the log, metrics, traces."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.logs import set_up_logging
from app.main import create_app
from app.observation import id_of
from app.settings import Settings
from tests.app.conftest import refusal
from tests.app.test_predict_route import QUESTION

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-ID": "abc-1.2:3_4"}, "abc-1.2:3_4"),
        ({"X-Request-ID": "a" * 65}, None),
        ({"X-Request-ID": "a b"}, None),
        ({"X-Request-ID": ""}, None),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"traceparent": "nonsense"}, None),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-ID": "mine"}, "mine"),
        ({}, None),
    ],
)
def test_a_request_has_its_own_id_or_a_new_one(
    lasting_client: TestClient, headers: dict[str, str], expected: str | None
) -> None:
    given = lasting_client.get("/healthz", headers=headers).headers["X-Request-ID"]
    assert given == expected or (expected is None and re.fullmatch(r"[0-9a-f]{32}", given))


def test_ids_that_are_made_differ() -> None:
    assert len({id_of([]) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("path", ["/healthz", "/datasets", "/nowhere", "/docs", "/", "/openapi.json", "/metrics"])
def test_every_answer_has_the_headers_that_keep_browsers_from_mischief(lasting_client: TestClient, path: str) -> None:
    headers = lasting_client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers.get_list("Cache-Control") == ["no-cache" if path in ("/", "/docs") else "no-store"]
    assert headers["X-Frame-Options"] == "DENY"
    assert "X-Request-ID" in headers
    [policy] = headers.get_list("Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "server" not in headers


def test_a_crash_is_answered_with_these_headers_and_counted_and_tells_nothing(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("a secret of the house")

    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        answer = client.get("/crash")
        refusal(answer, 500)
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert values(client, "neverseen_request_seconds_count", route="/crash", status="500") == [1]


def values(client: TestClient, name: str, **labels: str) -> list[float]:
    """Samples of a metric with these labels."""
    return [
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


@pytest.mark.usefixtures("sketch")
def test_metrics_count_what_happened(client: TestClient) -> None:
    for _ in range(3):
        assert client.post("/predict", json=QUESTION).status_code == 200
    refusal(client.post("/predict", json=QUESTION | {"sketch": "unknown"}), 404)
    assert values(client, "neverseen_request_seconds_count", route="/predict", status="200") == [3]
    assert values(client, "neverseen_request_seconds_count", route="/predict", status="404") == [1]
    assert values(client, "neverseen_problems_total", type="not-found") == [1]
    assert sum(values(client, "neverseen_predictions_total")) == 3
    assert values(client, "neverseen_audit_records_total") == [3]
    assert values(client, "neverseen_resident_versions") == [1]
    assert 0 < values(client, "neverseen_resident_bytes")[0] < values(client, "neverseen_resident_budget_bytes")[0]
    assert values(client, "neverseen_cache_requests_total", cache="tables", result="miss") == [1]
    assert values(client, "neverseen_queue_length", queue="slow") == [0]
    for phase in ("lookup", "engine", "audit", "queue"):
        assert values(client, "neverseen_phase_seconds_count", phase=phase)[0] >= 3


@pytest.mark.usefixtures("sketch")
def test_metrics_name_neither_what_is_asked_nor_who_asks(client: TestClient) -> None:
    client.post("/predict", json=QUESTION, headers={"X-Request-ID": "somebody"})
    client.get("/datasets/names")
    client.get("/a-strangers-path")
    client.request("STRANGE", "/datasets")
    told = client.get("/metrics").text
    for word in ("tiny", "has-x", "names", "somebody", "stranger", "STRANGE", "anonymous"):
        assert word not in told


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was written to standard error; logging is put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("app")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_the_log_is_json_with_the_requests_id(client: TestClient, settings: Settings, log: Callable[[], str]) -> None:
    set_up_logging(settings)
    client.get("/datasets", headers={"X-Request-ID": "r-77"})
    logging.getLogger("app.other").warning("no request")
    lines: list[dict[str, Any]] = [json.loads(line) for line in log().splitlines()]
    [line] = [line for line in lines if line.get("request_id") == "r-77"]
    assert line | {"time": "", "milliseconds": 0} == {
        "time": "",
        "level": "INFO",
        "logger": "app.requests",
        "message": "GET /datasets 200",
        "request_id": "r-77",
        "method": "GET",
        "route": "/datasets",
        "status": 200,
        "milliseconds": 0,
        "caller": "anonymous",
    }
    assert lines[-1]["request_id"] is None


def test_the_log_holds_no_key_and_no_text_of_a_question(
    client: TestClient, settings: Settings, log: Callable[[], str]
) -> None:
    set_up_logging(settings)
    client.get("/datasets?contains=confidential", headers={"Authorization": "Bearer nvs_confidential"})
    client.post("/predict", json=QUESTION | {"sketch": "confidential"})
    written = log()
    assert written
    assert "confidential" not in written


def test_the_log_is_text_where_that_is_asked_and_quiet_below_its_level(
    settings: Settings, log: Callable[[], str]
) -> None:
    set_up_logging(settings.model_copy(update={"log_format": "text", "log_level": "warning"}))
    logging.getLogger("app.x").info("unheard")
    logging.getLogger("app.x").warning("heard")
    assert log() == "WARNING heard\n"


def test_pages_of_other_origins_may_not_read_unless_the_settings_name_them(settings: Settings) -> None:
    origin = {"Origin": "https://app.example.org"}
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert "access-control-allow-origin" not in client.get("/datasets", headers=origin).headers
    named = settings.model_copy(update={"cors_origins": ("https://app.example.org",)})
    with TestClient(create_app(named), base_url="http://127.0.0.1") as client:
        answer = client.get("/datasets", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
        other = client.get("/datasets", headers={"Origin": "https://other.example.org"})
        assert "access-control-allow-origin" not in other.headers


def test_requests_are_traced_where_somebody_listens(tmp_path: Path) -> None:
    """In a process of its own: who listens is said once, for all of it."""
    program = f"""
from pathlib import Path
import warnings
warnings.simplefilter("ignore")
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from app.main import create_app
from app.settings import Settings
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with TestClient(create_app(Settings(data_dir=Path({str(tmp_path)!r}))), base_url="http://127.0.0.1") as client:
    client.get("/datasets", headers={{"traceparent": "00-{TRACE}-00f067aa0ba902b7-01"}})
    client.get("/healthz")
spans = [span for span in exporter.get_finished_spans() if span.parent is None or span.parent.is_remote]
print(*(f"{{span.name}} {{span.context.trace_id:032x}}" for span in spans), sep=";")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"GET /datasets {TRACE}"
