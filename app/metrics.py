"""What the service counts and times, in the words of Prometheus; `GET /metrics` shows it.

No label holds a name of the catalog or of a caller: whoever may look at how the service does learns nothing of what
it is asked. Figures are of one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.connections import Door
from app.predictor import Predictor
from app.queues import Queues

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The figures of one application."""

    def __init__(self) -> None:
        """All zero."""
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "neverseen_request_seconds",
            "Time of requests, from the head to the end of the answer.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._requests_of: dict[tuple[str, str, int], Histogram] = {}
        phases = Histogram(
            "neverseen_phase_seconds",
            "Time of the phases of answers: waiting for a thread, lookup in the catalog, engine, calibration, audit.",
            ("phase",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._phases = {name: phases.labels(name) for name in ("queue", "lookup", "engine", "calibration", "audit")}
        self._problems = Counter(
            "neverseen_problems_total", "Refusals and failures by their type.", ("type",), registry=self._registry
        )
        predictions = Counter(
            "neverseen_predictions_total",
            "Measurements predicted, and whether a change shows above the resolution.",
            ("below_resolution",),
            registry=self._registry,
        )
        self._predictions = {below: predictions.labels(str(below).lower()) for below in (False, True)}
        self._audit_records = Counter(
            "neverseen_audit_records_total", "Records of answers written to the audit.", registry=self._registry
        )
        self._audit_failures = Counter(
            "neverseen_audit_failures_total",
            "Records that couldn't be written; their answers weren't sent.",
            registry=self._registry,
        )
        Info("neverseen_build", "What runs.", registry=self._registry).info({"version": version("neverseen")})
        ProcessCollector(namespace="neverseen", registry=self._registry)

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered, or not."""
        key = (method, route, status)
        if key not in self._requests_of:
            self._requests_of[key] = self._requests.labels(method, route, str(status))
        self._requests_of[key].observe(seconds)

    def refused(self, kind: str) -> None:
        """Count a refusal or failure, by the last part of its problem's type."""
        self._problems.labels(kind).inc()

    def waited(self, seconds: float) -> None:
        """Count a question, or a search, that has waited for a thread."""
        self._phases["queue"].observe(seconds)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block as a phase: "lookup", "engine", "calibration"."""
        started = perf_counter()
        try:
            yield
        finally:
            self._phases[name].observe(perf_counter() - started)

    def recorded(self, records: int, seconds: float) -> None:
        """Count records of the audit, written in one transaction of some seconds."""
        self._audit_records.inc(records)
        self._phases["audit"].observe(seconds)

    def not_recorded(self, records: int) -> None:
        """Count records of the audit that couldn't be written."""
        self._audit_failures.inc(records)

    def predicted(self, *, below_resolution: bool) -> None:
        """Count a predicted measurement."""
        self._predictions[below_resolution].inc()

    def watch(self, predictor: Predictor, queues: Queues) -> None:
        """Show what is resident, the caches and the queues, too."""
        self._registry.register(_Present(predictor, queues))

    def register(self, collector: Collector) -> None:
        """Show the figures of a collector, too."""
        self._registry.register(collector)

    def watch_door(self, door: Door) -> None:
        """Show the connections, too."""
        self._registry.register(_Connections(door))

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Present(Collector):
    """Figures that are looked up when somebody asks."""

    def __init__(self, predictor: Predictor, queues: Queues) -> None:
        self._predictor, self._queues = predictor, queues

    def collect(self) -> Iterator[Metric]:
        """The figures now."""
        resident = self._predictor.resident()
        yield GaugeMetricFamily(
            "neverseen_resident_bytes", "Taken by resident sketches.", sum(one.bytes for one in resident)
        )
        yield GaugeMetricFamily(
            "neverseen_resident_budget_bytes", "That resident sketches may take.", self._predictor.budget_bytes
        )
        yield GaugeMetricFamily("neverseen_resident_versions", "Sketch versions that are resident.", len(resident))
        yield GaugeMetricFamily(
            "neverseen_failed_versions", "Sketch versions whose last load failed.", len(self._predictor.failures())
        )
        shards = self._predictor.shards()
        yield GaugeMetricFamily("neverseen_shards", "Shards of the service.", 0 if shards is None else shards.count)
        yield GaugeMetricFamily(
            "neverseen_shards_away", "Shards that are away or loading.", 0 if shards is None else shards.away
        )
        queues = GaugeMetricFamily("neverseen_queue_length", "Questions that wait or are answered.", labels=("queue",))
        for name, length in self._queues.lengths().items():
            queues.add_metric((name,), length)
        yield queues
        caches = CounterMetricFamily("neverseen_cache_requests", "Look-ups in caches.", labels=("cache", "result"))
        for name, (hits, misses) in self._predictor.cache_counts().items():
            caches.add_metric((name, "hit"), hits)
            caches.add_metric((name, "miss"), misses)
        yield caches


class _Connections(Collector):
    """Connections of the server, looked up when somebody asks."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def collect(self) -> Iterator[Metric]:
        """The figures now."""
        yield GaugeMetricFamily("neverseen_connections", "Open connections.", len(self._door.taken))
        yield GaugeMetricFamily(
            "neverseen_connections_limit", "Connections that may be open.", self._door.settings.max_connections
        )
        refused = CounterMetricFamily(
            "neverseen_connections_refused", "Connections refused before a request was read.", labels=("type",)
        )
        for slug, count in list(self._door.refused.items()):
            refused.add_metric((slug,), count)
        yield refused
