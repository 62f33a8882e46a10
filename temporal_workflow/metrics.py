"""The service's own Prometheus metrics, next to those of Temporal's SDK. Counts and times only, no ids, no names.

How long activities wait and take, and which fail, the SDK's metrics tell.
"""

from __future__ import annotations

import itertools

from prometheus_client import Counter, Histogram

from temporal_workflow import shared

CHUNKS = Counter("audio_chunks", "Chunks stored, by status", ["status"])
LABELS = Counter("audio_labels", "Classified chunks, by label", ["label"])
REJECTS = Counter("audio_rejects", "Rejected chunks, by named error", ["error"])
EVENTS = Counter("audio_event_changes", "Event changes stored, by kind", ["kind"])
ALERTS = Counter("audio_alerts", "Alerts delivered, by target and kind", ["target", "kind"])
HEALTH = Counter("audio_health_changes", "Changes of streams' health stored, by problem and kind", ["problem", "kind"])
for _problem, _kind in itertools.product(shared.PROBLEMS, ("HEALTH", "SILENT", "RESUMED")):
    HEALTH.labels(_problem, _kind)  # from 0 on: Prometheus sees no increase in what appears with a value
LATENCY = Histogram(
    "audio_latency_seconds",
    "From sending a chunk to storing its result",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
