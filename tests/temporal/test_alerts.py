"""Alerts out: signed webhooks that may be down, a real MQTT broker, and a stream that waits for neither."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from lib.events import EventChange
from temporal_workflow import alerts, shared
from temporal_workflow.alerts import AlertActivities, DeliveryError, Mqtt, Webhook, signature, targets
from temporal_workflow.devserver import free_port, is_listening
from temporal_workflow.results import ResultsTable
from temporal_workflow.sender import new_stream_id
from temporal_workflow.settings import SettingsError
from tests.chaos.harness import Service, ended_streams, wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@contextlib.contextmanager
def receiver(*answers: int, port: int = 0) -> Iterator[SimpleNamespace]:
    """A webhook's receiving end: answers in turn, then 204; `got` holds (headers, body)."""
    got, waiting = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(waiting.pop(0) if waiting else 204)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *args) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield SimpleNamespace(got=got, url=f"http://127.0.0.1:{server.server_address[1]}/hook")
        server.shutdown()


def change(number: int, kind: str = "START", label: str = "crying", *, event: int = 1) -> EventChange:
    return EventChange(event, number, kind, label, 1.0, 2.0, 0.9, False)


def table(folder: Path, *changes: EventChange, stream_id: str = "stream-a") -> ResultsTable:
    results = ResultsTable(f"sqlite:///{folder}/results.sqlite")
    results.store(shared.StoreInput(stream_id, changes=list(changes)))
    return results


def deliver(results: ResultsTable, target: Webhook | Mqtt, *, until) -> None:
    """Run the activity until something holds, then stop its worker."""
    environment = ActivityEnvironment()

    def stop() -> None:
        with contextlib.suppress(AssertionError):
            wait_until(until, seconds=20, every=0.02)
        environment.worker_shutdown()

    threading.Thread(target=stop, daemon=True).start()
    environment.run(AlertActivities(results, target).deliver)


def test_the_signature_is_that_of_the_standard() -> None:
    found = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", sent_at="1614265330", body=b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_alerts_go_out_once_in_order_and_signed(tmp_path: Path) -> None:
    kinds = ("START", "UPDATE", "SUSTAINED", "END", "SILENT", "RESUMED", "HEALTH")
    results = table(tmp_path, *(change(number, kind) for number, kind in enumerate(kinds, 1)), stream_id="file-a")
    results.store(shared.StoreInput("recording", changes=[change(1)]), kind="file")  # it is no live sound
    assert [row["stream_id"] for row in ended_streams(results)] == []  # and not finished
    with receiver(400, 409) as hook:  # refused alerts hold no other
        deliver(results, Webhook(hook.url, SECRET), until=lambda: len(hook.got) >= 6)
        deliver(results, Webhook(hook.url, SECRET), until=lambda: True)  # nothing twice
    sent = [json.loads(body) for _, body in hook.got]
    assert [alert["kind"] for alert in sent] == [kind for kind in kinds if kind != "UPDATE"]
    assert sent[0]["id"] == "file-a-1"
    assert (sent[0]["label"], sent[0]["onset_seconds"], sent[0]["event"]) == ("crying", 1.0, 1)
    for headers, body in hook.got:
        assert headers["idempotency-key"] == headers["webhook-id"] == json.loads(body)["id"]
        expected = signature(SECRET, headers["webhook-id"], sent_at=headers["webhook-timestamp"], body=body)
        assert headers["webhook-signature"] == expected


@pytest.mark.parametrize("answer", [500, 302, 401, 404, 429])
def test_what_does_not_arrive_is_sent_again_with_the_same_id(tmp_path: Path, answer: int) -> None:
    results = table(tmp_path, change(1), change(2, "END"))
    with receiver(answer) as hook:
        with pytest.raises(ApplicationError, match=str(answer)) as caught:
            deliver(results, Webhook(hook.url), until=lambda: False)
        assert "127.0.0.1" not in str(caught.value)
        deliver(results, Webhook(hook.url), until=lambda: len(hook.got) >= 3)
    assert [json.loads(body)["id"] for _, body in hook.got] == ["stream-a-1", "stream-a-1", "stream-a-2"]


def test_targets_come_from_settings_alone(tmp_path: Path) -> None:
    assert targets({}) == []
    (tmp_path / "secret").write_text("abc\n")
    webhook, mqtt = targets(
        {
            "AUDIO_WEBHOOK_URL": "https://a/b",
            "AUDIO_WEBHOOK_SECRET_FILE": str(tmp_path / "secret"),
            "AUDIO_MQTT_URL": "mqtts://user:p%40ss@broker/home/nursery.1",
        }
    )
    assert webhook == Webhook("https://a/b", "abc")
    assert (mqtt._topic, mqtt._password, mqtt._id) == ("home/nursery.1", "p@ss", "home_nursery_1")
    for variable, url in (
        ("AUDIO_WEBHOOK_URL", "file:///etc/passwd"),
        ("AUDIO_MQTT_URL", "broker:1883"),
        ("AUDIO_MQTT_URL", "mqtt://broker/home+hall"),
        ("AUDIO_MQTT_URL", "mqtt://user:hidden/word@broker"),
        ("AUDIO_WEBHOOK_URL", "https://user:hidden\u2100@a/b"),
    ):
        with pytest.raises(SettingsError, match=f"{variable} must(?!.*hidden)"):
            targets({variable: url})
    with pytest.raises(SettingsError, match="base64"):
        targets({"AUDIO_WEBHOOK_URL": "https://a/b", "AUDIO_WEBHOOK_SECRET": "whsec_a"})


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A mosquitto that wants a password; yields host and port."""
    if not shutil.which("mosquitto") or not shutil.which("mosquitto_passwd"):
        pytest.skip("needs mosquitto: apt-get install mosquitto")
    port = free_port()
    (tmp_path / "passwords").touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", tmp_path / "passwords", "user", "p@ss"], check=True, capture_output=True)
    (tmp_path / "passwords").chmod(0o644)
    settings = f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {tmp_path}/passwords\nuser root\n"
    (tmp_path / "mosquitto.conf").write_text(settings)
    with subprocess.Popen(["mosquitto", "-c", tmp_path / "mosquitto.conf"], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: is_listening(port), seconds=20)
        yield f"127.0.0.1:{port}"
        process.kill()


def subscribed(address: str) -> tuple[queue.Queue, object]:
    """Return what the broker publishes from now on, retained messages first, and the client to disconnect."""
    import paho.mqtt.client as paho

    messages: queue.Queue = queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.username_pw_set("user", "p@ss")
    client.on_connect = lambda *_: client.subscribe("#", qos=1)
    client.on_message = lambda _client, _data, message: messages.put((message.topic, message.payload.decode()))
    client.connect("127.0.0.1", int(address.split(":")[1]))
    client.loop_start()
    return messages, client


def waiting(results: ResultsTable) -> list:
    return results.alerts("mqtt", is_new=True, max_age=alerts.MAX_AGE, memory=alerts.MEMORY)


def test_what_is_too_old_to_be_told_is_past_and_so_ends_what_was_told(tmp_path: Path) -> None:
    results = table(tmp_path, change(1), change(2, "END"))
    results.mark_delivered("mqtt", "stream-a", 1)
    assert [row["change"] for row in waiting(results)] == [2]
    old = {"max_age": timedelta(0), "memory": alerts.MEMORY}
    assert results.alerts("mqtt", is_new=True, **old) == []
    assert [row["kind"] for row in results.alerts("mqtt", is_new=False, **old)] == ["START", "END"]


def test_home_assistant_finds_the_detector_and_its_state(tmp_path: Path, broker: str) -> None:
    messages, client = subscribed(broker)
    seen: dict[str, list[str]] = {}

    def wait_for(topic: str, *texts: str) -> None:
        while seen.get(topic, [])[-len(texts) :] != list(texts):
            name, text = messages.get(timeout=20)
            seen.setdefault(name, []).append(text)

    steps = [change(1), change(2, "HEALTH", "clipping", event=2), change(3, "END"), change(4, "RESUMED", event=2)]
    results = table(tmp_path, *steps, change(5, "START", "screaming", event=3))
    target = Mqtt(f"mqtt://user:p%40ss@{broker}/home")
    deliver(results, target, until=lambda: not waiting(results))
    wait_for("home/availability", "online")
    device = json.loads(seen["homeassistant/device/home/config"][0])
    assert {name: part["platform"] for name, part in device["components"].items()} == {
        **dict.fromkeys(("crying", "screaming", "problem"), "binary_sensor"),
        "alert": "event",
    }
    assert device["components"]["crying"]["state_topic"] == "home/crying"
    wait_for("home/crying", "OFF", "ON", "OFF")
    wait_for("home/problem", "OFF", "ON", "OFF")
    wait_for("home/screaming", "OFF", "ON")
    assert [json.loads(text)["event_type"] for text in seen["home/alert"]] == [
        "START", "HEALTH", "END", "RESUMED", "START",
    ]  # fmt: skip
    results.store(shared.StoreInput("stream-a", changes=[change(6, "SILENT", event=4)]))  # nobody knows any more
    deliver(results, target, until=lambda: not waiting(results))
    wait_for("home/screaming", "ON", "ON", "OFF")  # a new connection says what goes on, then the silence comes
    wait_for("home/problem", "OFF", "ON")
    n_said = len(seen["home/crying"])
    for step in (change(7, "RESUMED", event=4), change(9, "END", event=5), change(8, event=5)):  # clocks may differ
        results.store(shared.StoreInput("stream-a", changes=[step]))
    deliver(results, target, until=lambda: not waiting(results))
    wait_for("home/screaming", "OFF", "ON")  # it went on all the while
    wait_for("home/problem", "ON", "OFF")
    assert "ON" not in seen["home/crying"][n_said:]
    client.disconnect()


def test_a_broker_that_refuses_or_is_gone_is_named_without_its_password(broker: str) -> None:
    for url, says in ((f"mqtt://user:wrong@{broker}", "Not authorized"), ("mqtt://127.0.0.1:9", "does not answer")):
        with pytest.raises(DeliveryError, match=says) as caught, Mqtt(url):
            pass
        assert "wrong" not in str(caught.value)
        assert not [thread for thread in threading.enumerate() if "paho" in thread.name]  # none goes on trying


def test_a_dead_webhook_holds_neither_a_stream_nor_the_service_and_gets_its_alerts_later(
    tmp_path: Path, monkeypatch
) -> None:
    port = free_port()
    monkeypatch.setenv("AUDIO_WEBHOOK_URL", f"http://127.0.0.1:{port}/hook?token=secret-in-url")
    monkeypatch.setenv("AUDIO_WEBHOOK_SECRET", SECRET)
    with Service(tmp_path) as service:
        stream_id = new_stream_id()
        chunks = service.put(stream_id, ["normal", "crying", "crying", "normal"])

        summary = asyncio.run(asyncio.wait_for(service.send(stream_id, chunks), 60))
        assert summary.n_classified == 4  # the webhook is down all the while
        time.sleep(1)
        with receiver(port=port) as hook:
            wait_until(lambda: len(hook.got) >= 2, seconds=90)
        sent = [json.loads(body) for _, body in hook.got]
        assert [(alert["stream_id"], alert["kind"]) for alert in sent] == [(stream_id, "START"), (stream_id, "END")]

        async def text() -> str:
            history = await (await service.client()).get_workflow_handle("alerts-webhook").fetch_history()
            return history.to_json()

        found = asyncio.run(text())
    assert [child.process.returncode for child in service.children.values()] == [0, 0, 0]
    assert service.logs().count('"message": "stopped"') == 2  # the workers, after what they had in progress
    assert '"deliver"' in found
    assert "secret-in-url" not in found
    assert SECRET not in found
