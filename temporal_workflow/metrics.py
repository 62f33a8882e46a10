"""The service's own Prometheus metrics, next to those of Temporal's SDK. Counts and times only, no ids, no names."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

CHUNKS = Counter("audio_chunks", "Chunks stored, by status", ["status"])
LABELS = Counter("audio_labels", "Classified chunks, by label", ["label"])
REJECTS = Counter("audio_rejects", "Rejected chunks, by named error", ["error"])
EVENTS = Counter("audio_event_changes", "Event changes stored, by kind", ["kind"])
ALERTS = Counter("audio_alerts", "Alerts delivered, by target and kind", ["target", "kind"])
RETRIES = Counter("audio_retries", "Activity attempts after the first", ["activity"])
SECONDS = Histogram(
    "audio_activity_seconds",
    "Time inside an activity",
    ["activity"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
QUEUE_DELAY = Histogram(
    "audio_queue_delay_seconds",
    "From scheduling an activity to its start",
    ["activity"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
LATENCY = Histogram(
    "audio_latency_seconds",
    "From sending a chunk to storing its result",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
