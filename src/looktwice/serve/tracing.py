"""Trace requests and blocks with OpenTelemetry, for a server that was started with --tracing."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from typing import Any

from fastapi import FastAPI

from looktwice.errors import MissingDependency, UnknownName

QUIET = "healthz,readyz,metrics"
_tracer: Any = None


def trace_app(app: FastAPI) -> None:
    """Make spans of every request but those of QUIET, and of every block on the device.

    Without a tracer provider of its own, the process gets one that exports as OTEL_TRACES_EXPORTER says ("console" if
    it is unset). Raises MissingDependency, and UnknownName for an exporter that is not installed.
    """
    global _tracer
    try:
        from opentelemetry import trace
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError:
        raise MissingDependency("opentelemetry", "otel", "--tracing") from None
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(_provider())
    _tracer = trace.get_tracer("looktwice.serve")
    FastAPIInstrumentor.instrument_app(app, excluded_urls=QUIET)


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """Return a context that is a span of the current trace; without tracing, one that does nothing."""
    if _tracer is None:
        return nullcontext()
    made: AbstractContextManager[Any] = _tracer.start_as_current_span(name, attributes=attributes)
    return made


def _provider() -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    known = {entry.name: entry for entry in entry_points(group="opentelemetry_traces_exporter")}
    name = os.environ.get("OTEL_TRACES_EXPORTER", "console")
    if name not in known:
        raise UnknownName("exporter of traces", name, known)
    provider = TracerProvider(resource=Resource.create({"service.name": "looktwice"}))
    provider.add_span_processor(BatchSpanProcessor(known[name].load()()))
    return provider
