"""OpenTelemetry, where it is installed and told where spans go: a span for each request.

`pip install neverseen[otel]`, then `opentelemetry-instrument neverseen serve`, with the variables OTEL_* of every
program. Otherwise nothing is done, and nothing is spent.
"""

from __future__ import annotations

from importlib.util import find_spec

from fastapi import FastAPI


def install(app: FastAPI) -> bool:
    """Trace the application's requests, where somebody listens; whether that is so."""
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.instrumentation") is None:
        return False
    if find_spec("opentelemetry.instrumentation.fastapi") is None:
        return False
    from opentelemetry import trace  # noqa: PLC0415 - they may not be there
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return False
    FastAPIInstrumentor.instrument_app(app, excluded_urls="healthz,readyz,metrics")
    return True
