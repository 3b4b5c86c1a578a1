"""Count what a server does, for Prometheus: vLLM's names with our prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from looktwice.serve.device_queue import DeviceQueue
    from looktwice.serve.holding import HeldBytes
    from looktwice.serve.jobs import Jobs

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The measurements of one server, in a registry of its own."""

    def __init__(self, queue: DeviceQueue, jobs: Jobs, memory: HeldBytes, ready: Callable[[], bool]) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("looktwice_request", "Requests answered.", ["method", "route", "status"], registry=own)
        self.success = Counter("looktwice_request_success", "Requests answered with 2xx.", ["route"], registry=own)
        self.seconds = Histogram(
            "looktwice_request_seconds", "Seconds from headers to answer.", ["route"], buckets=_SECONDS, registry=own
        )
        self.queued = Histogram(
            "looktwice_request_queue_time_seconds", "Seconds until the first block.", buckets=_SECONDS, registry=own
        )
        queue.waited = self.queued.observe
        gauges = {
            "num_requests_running": ("Requests that had a turn on the device.", lambda: jobs.counts()[0]),
            "num_requests_waiting": ("Requests that wait for their first turn.", lambda: jobs.counts()[1]),
            "num_pairs_admitted": ("Pairs of all admitted requests.", lambda: jobs.gate.pairs),
            "held_bytes": ("Bytes of bodies, decoded queries and large answers.", lambda: memory.held),
            "ready": ("1 when weights and tables are loaded.", lambda: float(ready())),
        }
        for name, (what, read) in gauges.items():
            Gauge(f"looktwice_{name}", what, registry=own).set_function(read)
        counts = {
            "pairs": ("Pairs scored on the device.", lambda: queue.pairs_done),
            "device_busy_seconds": ("Seconds that the device worked.", lambda: queue.busy_seconds),
            "requests_shared": ("Requests answered by an identical one in work.", lambda: jobs.shared),
        }
        for name, (what, read) in counts.items():
            Gauge(f"looktwice_{name}_total", what, registry=own).set_function(read)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        method = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if status < 300:
            self.success.labels(route).inc()

    def text(self) -> bytes:
        """Return all measurements in Prometheus' text format."""
        return generate_latest(self.registry)
