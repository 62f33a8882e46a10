"""Alerts to the outside: a webhook, an MQTT broker with Home Assistant's discovery. Settings alone switch them on.

The results table is the outbox: an activity for each target reads what it has not delivered yet, in order, and marks
it once it is. No stream waits for a target, and neither its address nor its password is in a workflow's history. A
worker that dies in between delivers an alert twice, with the same id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import os
import queue
import re
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from lib.events import EVENT_LABELS
from temporal_workflow import metrics, shared
from temporal_workflow.results import ResultsTable, with_zone
from temporal_workflow.settings import SettingsError

LOG = logging.getLogger(__name__)
QUEUE = "cry-scream-alerts"  # and the target's name: only workers that have its settings take its work
MAX_AGE = timedelta(hours=1)  # an older alert is no longer sent
MEMORY = timedelta(days=1)  # the longest time for which a broker is told that something goes on
POLL_SECONDS, ANSWER_SECONDS = 1.0, 10.0
RUN = timedelta(hours=1)  # then the workflow's next run begins
RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10))
REFUSED = (400, 409, 410, 413, 415, 422)  # the alert itself: the next one may pass
STATES = (*EVENT_LABELS, "problem")  # that a broker is told to go on or not


class DeliveryError(RuntimeError):
    """A target does not take alerts now; the message holds neither its address nor a password."""


@dataclass
class Webhook:
    """Posts each alert as JSON, signed as standardwebhooks.com has it: HMAC-SHA256 over id, time and body."""

    url: str
    secret: str = ""
    name: str = "webhook"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left open."""

    def tell(self, alerts: list[dict[str, Any]], *, is_new: bool) -> None:
        """Deliver alerts that are new. DeliveryError if that fails."""
        for alert in alerts if is_new else ():
            self._post(alert["id"], json.dumps(alert).encode())

    def _post(self, alert_id: str, body: bytes) -> None:
        sent_at = str(int(time.time()))
        headers = {"Content-Type": "application/json", "webhook-id": alert_id, "webhook-timestamp": sent_at}
        headers["Idempotency-Key"] = alert_id
        if self.secret:
            headers["webhook-signature"] = signature(self.secret, alert_id, sent_at=sent_at, body=body)
        try:
            _OPENER.open(urllib.request.Request(self.url, body, headers), timeout=ANSWER_SECONDS).close()
        except urllib.error.HTTPError as error:
            if error.code not in REFUSED:
                raise DeliveryError(f"the webhook answers {error.code}") from None
            LOG.warning("alert refused", extra={"fields": {"alert": alert_id, "status": error.code}})
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError(f"the webhook does not answer ({type(error).__name__})") from None


def signature(secret: str, alert_id: str, *, sent_at: str, body: bytes) -> str:
    """Return the header `webhook-signature`; the key is the secret's bytes, decoded where it begins with whsec_."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    digest = hmac.new(key, f"{alert_id}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: the alert would arrive as a request for a page."""


_OPENER = urllib.request.build_opener(_NoRedirect)


class Mqtt:
    """Publishes to a broker: each alert, and whether crying, screaming and a problem go on, which Home Assistant finds.

    Parameters
    ----------
    url : str
        mqtt://user:password@host:port/topic or mqtts://...; all but the host may be missing.
    password : str, optional
        Instead of the one in `url`.
    """

    name = "mqtt"

    def __init__(self, url: str, password: str = "", *, discovery_prefix: str = "homeassistant") -> None:
        self._url, self._prefix = urlsplit(url), discovery_prefix
        self._password = password or unquote(self._url.password or "")
        self._topic = self._url.path.strip("/") or "cry-scream-detector"
        if "+" in self._topic:
            raise SettingsError("AUDIO_MQTT_URL must name a topic without +, which stands for any topic.")
        self._id = re.sub(r"[^A-Za-z0-9_-]", "_", self._topic)  # Home Assistant finds no device by another
        self._open: dict[tuple[str, int], str] = {}  # label, SILENT or HEALTH, by stream and event
        self._changes: dict[tuple[str, int], int] = {}  # the newest of each event
        self._states: dict[str, str] = {}  # as published

    def __enter__(self) -> Self:
        import paho.mqtt.client as paho

        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client = self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, f"{self._topic.replace('/', '-')}-{secrets.token_hex(4)}"
        )
        client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.put(reason)
        if self._url.username:
            client.username_pw_set(unquote(self._url.username), self._password)
        if is_secure := self._url.scheme == "mqtts":
            client.tls_set()
        client.will_set(f"{self._topic}/availability", "offline", qos=1, retain=True)
        try:
            client.connect(self._url.hostname or "", self._url.port or (8883 if is_secure else 1883), keepalive=30)
            client.loop_start()
            if (reason := answers.get(timeout=ANSWER_SECONDS)).is_failure:
                raise DeliveryError(f"the broker refuses the connection ({reason})")
            self._publish(f"{self._prefix}/device/{self._id}/config", json.dumps(self._discovery()))
            self._publish(f"{self._topic}/availability", "online")
        except (OSError, queue.Empty, DeliveryError) as error:
            self.__exit__()
            said = error if isinstance(error, DeliveryError) else f"the broker does not answer ({type(error).__name__})"
            raise DeliveryError(said) from None
        self._open, self._changes, self._states = {}, {}, {}
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def tell(self, alerts: list[dict[str, Any]], *, is_new: bool) -> None:
        """Publish what goes on, and the alerts that are new. DeliveryError if that fails or the connection is gone."""
        if not self._client.is_connected():
            raise DeliveryError("the connection to the broker is lost")
        for alert in alerts:
            if is_new:
                self._publish(f"{self._topic}/alert", json.dumps(alert), retain=False)
            self._note(alert)
        going_on = self._going_on()
        states = {label: "ON" if label in going_on else "OFF" for label in STATES}
        for label, state in states.items():
            if self._states.get(label) != state:
                self._publish(f"{self._topic}/{label}", state)
        self._states = states

    def _note(self, alert: dict[str, Any]) -> None:
        key, kind = (alert["stream_id"], alert["event"]), alert["kind"]
        if alert["change"] < self._changes.get(key, 0):  # stored by a machine whose clock is behind
            return
        self._changes[key] = alert["change"]
        if kind in ("END", "RESUMED"):
            self._open.pop(key, None)
        else:
            self._open[key] = kind if kind in ("SILENT", "HEALTH") else alert["label"]

    def _going_on(self) -> set[str]:
        """Return which of `STATES` go on; whether a child cries whose stream is silent is not known."""
        silent = {stream_id for (stream_id, _), what in self._open.items() if what == "SILENT"}
        going_on = {what for (stream_id, _), what in self._open.items() if stream_id not in silent}
        return going_on | ({"problem"} if silent or "HEALTH" in going_on else set())

    def _publish(self, topic: str, text: str, *, retain: bool = True) -> None:
        try:
            message = self._client.publish(topic, text, qos=1, retain=retain)
            message.wait_for_publish(ANSWER_SECONDS)
        except (RuntimeError, ValueError) as error:
            raise DeliveryError(f"the broker is not reachable ({type(error).__name__})") from None
        if not message.is_published():
            raise DeliveryError("the broker does not confirm")

    def _discovery(self) -> dict[str, Any]:
        """Return the device for home-assistant.io/integrations/mqtt, "device discovery"."""

        def part(name: str, platform: str, **more: Any) -> dict[str, Any]:
            place = {"state_topic": f"{self._topic}/{name}", "unique_id": f"{self._id}_{name}"}
            return {"platform": platform, "name": name.capitalize(), **place, **more}

        sensors = {
            label: part(label, "binary_sensor", device_class="problem" if label == "problem" else "sound")
            for label in STATES
        }
        return {
            "device": {"identifiers": [self._id], "name": "Cry and scream detector"},
            "origin": {"name": "cry-scream-detector"},
            "availability_topic": f"{self._topic}/availability",
            "components": sensors | {"alert": part("alert", "event", event_types=shared.ALERT_KINDS)},
        }


def targets(environment: Mapping[str, str] = os.environ) -> list[Webhook | Mqtt]:
    """Return the targets that are set: AUDIO_WEBHOOK_URL, AUDIO_MQTT_URL; secrets as text or as files.

    Raises
    ------
    SettingsError
        If an address makes no sense.
    """
    found: list[Webhook | Mqtt] = []
    if url := _address(environment, "AUDIO_WEBHOOK_URL", ("http", "https")):
        secret = _secret(environment, "AUDIO_WEBHOOK_SECRET_FILE")
        try:
            signature(secret, "", sent_at="", body=b"")
        except ValueError:
            raise SettingsError("AUDIO_WEBHOOK_SECRET: what follows whsec_ must be base64.") from None
        found.append(Webhook(url, secret))
    if url := _address(environment, "AUDIO_MQTT_URL", ("mqtt", "mqtts")):
        prefix = environment.get("AUDIO_MQTT_DISCOVERY_PREFIX") or "homeassistant"
        found.append(Mqtt(url, _secret(environment, "AUDIO_MQTT_PASSWORD_FILE"), discovery_prefix=prefix))
    return found


def _address(environment: Mapping[str, str], variable: str, schemes: tuple[str, ...]) -> str:
    url = environment.get(variable, "")
    try:
        parts = urlsplit(url)
        is_wrong = parts.scheme not in schemes or not parts.hostname or parts.port == 0
    except ValueError:  # its text could hold a part of a password
        is_wrong = True
    if url and is_wrong:
        raise SettingsError(
            f"{variable} must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host; a port is a "
            "number; in user and password, write / ? # @ : as %2F %3F %23 %40 %3A."
        )
    return url


def _secret(environment: Mapping[str, str], variable: str) -> str:
    if path := environment.get(variable):
        return Path(path).read_text(encoding="utf-8").strip()
    return environment.get(variable.removesuffix("_FILE"), "")


class AlertActivities:
    """The activity that delivers to one target."""

    def __init__(self, results: ResultsTable, target: Webhook | Mqtt) -> None:
        self._results, self._target = results, target

    @activity.defn(name="deliver")
    def deliver(self) -> None:
        """Deliver alerts as they are stored, in order, until the run is over or the worker stops."""
        stop_at = time.monotonic() + RUN.total_seconds() / 2
        try:
            with self._target as target:
                target.tell(self._alerts(is_new=False), is_new=False)
                while time.monotonic() < stop_at and not activity.is_worker_shutdown():
                    for alert in self._alerts(is_new=True):
                        target.tell([alert], is_new=True)
                        self._results.mark_delivered(target.name, alert["stream_id"], alert["change"])
                        metrics.ALERTS.labels(target.name, alert["kind"]).inc()
                        activity.heartbeat()
                    target.tell([], is_new=False)
                    activity.heartbeat()
                    activity.wait_for_worker_shutdown_sync(POLL_SECONDS)
        except DeliveryError as error:
            LOG.warning("alerts wait", extra={"fields": {"target": self._target.name, "reason": str(error)}})
            raise ApplicationError(str(error), type="DeliveryError") from None

    def _alerts(self, *, is_new: bool) -> list[dict[str, Any]]:
        rows = self._results.alerts(self._target.name, is_new=is_new, max_age=MAX_AGE, memory=MEMORY)
        return [_alert(row) for row in rows]


def _alert(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the outside is told of a change."""
    names = ("stream_id", "kind", "label", "onset_seconds", "offset_seconds", "peak_probability", "sustained", "change")
    facts = {"id": f"{row['stream_id']}-{row['change']}", "event": row["number"], "event_type": row["kind"]}
    time = with_zone(row["stored_at"]).astimezone(UTC).isoformat()
    return {**facts, **{name: row[name] for name in names}, "time": time}


@workflow.defn(sandboxed=False)
class AlertsWorkflow:
    """Keeps the delivery to one target running, for ever."""

    @workflow.run
    async def run(self) -> None:
        """Deliver for a while, then go on as a new run, so that no history grows."""
        await workflow.execute_activity(
            "deliver", start_to_close_timeout=RUN, heartbeat_timeout=timedelta(seconds=30), retry_policy=RETRIES
        )
        workflow.continue_as_new()


async def alert_workers(client: Client, results: ResultsTable) -> list[Worker]:
    """Return a worker for each target that is set, and see that its workflow runs."""
    workers = []
    for target in targets():
        task_queue = f"{QUEUE}-{target.name}"
        await client.start_workflow(
            AlertsWorkflow.run,
            id=f"alerts-{target.name}",
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        workers.append(
            Worker(
                client,
                task_queue=task_queue,
                workflows=[AlertsWorkflow],
                activities=[AlertActivities(results, target).deliver],
                activity_executor=ThreadPoolExecutor(1, thread_name_prefix="alerts"),
                max_concurrent_activities=1,
                graceful_shutdown_timeout=timedelta(seconds=2 * ANSWER_SECONDS),
            )
        )
    return workers
