"""Figures of erasure requests and deliveries, over all processes, for `GET /metrics`.

They are counted in the catalog every few seconds by a thread, so that whoever asks for figures waits for no database.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Final, get_args

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from app import catalog
from app.catalog import RequestCounts
from app.db import Database, transaction
from app.errors import AppError
from app.privacy.attempts import Result
from app.privacy.certificates import certificate_ends_at
from app.privacy.connections import open_connection
from app.privacy.messages import Kind
from app.secret import Secret

logger = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class _Seen:
    requests: RequestCounts
    deliveries: dict[str, int]
    certificates: dict[str, datetime]


class Figures(Collector):
    """Counts from `start` to `stop`; a collector of Prometheus' client."""

    def __init__(self, database: Database, secret: Secret) -> None:
        """Nothing is counted yet.

        Args:
            database: the catalog.
            secret: of the installation.
        """
        self._database, self._secret = database, secret
        self._seen: _Seen | None = None
        self._attempts = Counter(
            "neverseen_delivery_attempts_total",
            "Attempts of this process to send a message to a peer, by what it is and what came of it.",
            ("kind", "result"),
            registry=None,
        )
        for kind, result in product(get_args(Kind), get_args(Result)):
            self._attempts.labels(kind, result)  # which are shown as 0 from the start
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="privacy-figures", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def stop(self) -> None:
        """Count no more."""
        self._stopping.set()
        self._thread.join()

    def count(self) -> None:
        """Count now.

        Raises:
            SQLAlchemyError: the catalog can't be read.
        """
        with transaction(self._database, writes=False) as session:
            opened = [open_connection(row, self._secret) for row in catalog.connections_of(session, "opendsr")]
            self._seen = _Seen(
                requests=catalog.count_requests(session, now=datetime.now(UTC)),
                deliveries=catalog.count_deliveries(session),
                certificates={
                    one.name: certificate_ends_at(one.secrets.certificate)
                    for one in opened
                    if one.secrets.certificate is not None
                },
            )

    def sent(self, kind: str, result: str) -> None:
        """Count an attempt to send a message."""
        self._attempts.labels(kind, result).inc()

    def collect(self) -> Iterator[Metric]:
        """The figures as they were counted last; of requests none before the first time."""
        yield from self._attempts.collect()
        seen = self._seen
        if seen is None:
            return
        requests = GaugeMetricFamily("neverseen_erasure_requests", "Erasure requests by state.", labels=("state",))
        for state, count in seen.requests.by_state.items():
            requests.add_metric((state,), count)
        yield requests
        yield GaugeMetricFamily(
            "neverseen_erasure_requests_late", "That aren't done though they should be.", seen.requests.late
        )
        yield GaugeMetricFamily(
            "neverseen_erasure_requests_stuck",
            "That nobody has worked on for a quarter of an hour though it is their turn.",
            seen.requests.stuck,
        )
        yield GaugeMetricFamily(
            "neverseen_erasure_requests_oldest_seconds",
            "Since the oldest that isn't done arrived; 0 where there is none.",
            seen.requests.oldest_seconds,
        )
        deliveries = GaugeMetricFamily("neverseen_deliveries", "Messages to peers by state.", labels=("state",))
        for state, count in seen.deliveries.items():
            deliveries.add_metric((state,), count)
        yield deliveries
        first = min(seen.certificates.values(), default=None)
        yield GaugeMetricFamily(
            "neverseen_certificate_seconds",
            "Until the first certificate of an OpenDSR connection ends; +Inf where there is none.",
            math.inf if first is None else (first - datetime.now(UTC)).total_seconds(),
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.count()
            except (SQLAlchemyError, AppError) as error:
                logger.debug("Erasure requests can't be counted: %s", type(error).__name__)
            self._stopping.wait(_EVERY_SECONDS)
