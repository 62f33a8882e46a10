"""Trains the detector, chooses its settings, and measures it: `./run_all.sh studies product`.

Writes models/detector, and in build/studies product.json, curves.json, listening.json and tables/detector_*.csv. Needs
the full build and TF-Hub's YAMNet; takes about 26 minutes of one core, 11 of them YAMNet's and 9 the training's. Kept
embeddings make a second run shorter.

Every figure is of the detector in models/detector, run by `Detector.detect`; those of left-out corpora are of networks
trained in the same way without that corpus, with the same settings.

A cascade was tried, events kept only where a linear head on YAMNet's mean and maximum over the event, trained without
that corpus too, gives the label a probability of `confirmed_from` or more (detector_cascade.csv): at equal recall it
removes fewer false alarms than a higher threshold of the detector does, so there is none.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from lib import config, evaluation, manifest, splits
from lib.config import MAX_SEGMENT_SECONDS
from lib.detector import (
    HOP_SECONDS,
    LOOK_AHEAD_SECONDS,
    SETTINGS_FILE,
    SILENCE_PEAK,
    WEIGHTS_FILE,
    Detection,
    Detector,
    DetectorSettings,
    FrameNetwork,
)
from lib.ensemble import MODEL_NAMES, combined_with
from lib.events import EVENT_LABELS, Event, EventSettings
from lib.networks.onnx_networks import Yamnet
from lib.studies import bench, curves, detection, detector_training, listening, operating_point, window_figures
from lib.studies.bench import Trial
from lib.studies.detection import overlap
from lib.studies.inputs import Inputs
from lib.studies.long_recordings import draw
from lib.studies.operating_point import LeftOut
from lib.studies.result import Result, plain
from lib.studies.soundscapes import Soundscape

CACHE_DIR = config.STUDIES_DIR / "cache"
# Tables of what was tried before the settings were chosen. "tried": networks compared on corpora left out, macro F1 of
# single clips in faint room noise, by the larger maximum over frames at the best thresholds; average precision of the
# maxima; recall of the loudest 1 to 4 s of cries and 0.5 to 2 s of screams in 10 or 15 s of room noise; share of normal
# clips above a threshold. "cascade": see above. "excerpts": macro F1 of YAMNet alone on unseen corpora, by what of a
# sound it classifies (`lib.networks.onnx_networks.excerpt_start`) and what its heads are trained on. "acoustics": the
# figures that settings are chosen by (`operating_point`), with and without pitch, spectrum and roughness.
NOTED = ("tried", "cascade", "excerpts", "acoustics")
NEAR_SECONDS = 1.0  # a scream is found by an event that comes this near
__all__ = ["draw", "run"]
Predicted = Mapping[str, Mapping[str, np.ndarray]]  # the ensemble's rows (3,), of "test" and "left_out", by clip
Hours = Mapping[str, list[detection.Scored]]  # of "test" and "left_out"


class Clips:
    """Rows and waveforms of some clips, in one order."""

    def __init__(self, rows: pd.DataFrame, waveforms: Sequence[np.ndarray]) -> None:
        self.rows, self.waveforms = rows.reset_index(drop=True), list(waveforms)

    def where(self, wanted: np.ndarray) -> Clips:
        """Return the clips of some rows (n_clips,) of bool."""
        places = np.flatnonzero(wanted)
        return Clips(self.rows.iloc[places], [self.waveforms[place] for place in places])


Singles = Mapping[str, tuple[Clips, list[tuple[Trial, Detection]]]]  # single clips, of "test" and "left_out"


def run(inputs: Inputs) -> Result:
    """Train, choose and measure on the clips of all splits; write models/detector and product.json."""
    clips = Clips(inputs.rows(*manifest.SPLITS), inputs.waveforms(*manifest.SPLITS))
    yamnet = Yamnet()
    embed = bench.cached(yamnet.embed, CACHE_DIR / f"embeddings_{yamnet.version}")
    chosen_on = clips.where((clips.rows["split"] != "test").to_numpy())
    audioset = detector_training.audioset_of(embed)
    material = detector_training.material(chosen_on.rows, chosen_on.waveforms)
    described = detector_training.describe(material, yamnet.embed)
    networks = detector_training.leave_one_out(described, audioset)
    start = DetectorSettings(operating_point.START)
    unseen = {name: Detector(embed, network, start) for name, network in networks.items()}
    made = bench.left_out(chosen_on.rows, chosen_on.waveforms)
    left_out = _left_out(chosen_on, unseen, made)
    settings, tries = operating_point.choose(left_out, _released())
    whole = detector_training.train(described, np.arange(len(described.labels)), audioset)
    save(whole, settings, config.MODELS_DIR)
    shipped = Detector.load(config.MODELS_DIR, embed=embed)
    unseen = {name: replace(detector, settings=DetectorSettings(settings)) for name, detector in unseen.items()}
    test = clips.where((clips.rows["split"] == "test").to_numpy())
    hours = {
        "test": detection.score(bench.test_hours(test.rows, test.waveforms), shipped),
        "left_out": detection.at(left_out.scored, settings),
    }
    singles = {
        "test": (test, list(_detected(test, shipped, bench.single_clips))),
        "left_out": (clips, list(_detected(clips, unseen, bench.single_clips))),
    }
    lasting = {
        "test": detection.score(bench.sustained(test.rows, test.waveforms), shipped),
        "left_out": detection.at(left_out.lasting, settings),
    }
    figures, tables = _figures(
        clips, shipped, unseen, hours=hours, lasting=lasting, singles=singles, ensemble=_by_ensemble(inputs)
    )
    figures["versions"] |= {name: inputs.version(name) for name in MODEL_NAMES}
    figures["windows"]["leave_one_corpus_out"], tables["detector_windows"] = window_figures.measure(inputs, unseen)
    _write_for_pages(clips, hours, singles)
    tables |= {f"detector_{name}": pd.read_csv(Path(__file__).with_name(f"detector_{name}.csv")) for name in NOTED}
    tables["detector_settings"] = tries
    text = json.dumps(plain(figures), indent=2, allow_nan=False) + "\n"
    (config.STUDIES_DIR / "product.json").write_text(text, encoding="utf-8")
    return Result(figures, tables)


def _released() -> EventSettings | None:
    path = config.MODELS_DIR / "detector" / SETTINGS_FILE
    return EventSettings(**json.loads(path.read_text(encoding="utf-8"))["events"]) if path.is_file() else None


def _left_out(clips: Clips, unseen: dict[str, Detector], made: Mapping[str, Sequence[Soundscape]]) -> LeftOut:
    """Return what the settings are chosen on."""
    lasting = bench.left_out(clips.rows, clips.waveforms, content="sustained")
    scored, long = (
        [scape for name in some for scape in detection.score(some[name], unseen[name])] for some in (made, lasting)
    )
    alone = list(_detected(clips, unseen, bench.single_clips))
    short = functools.partial(bench.screams, seconds=min(bench.WINDOW_SECONDS))
    brief = {"crying": _detected(clips, unseen, bench.gated), "screaming": _detected(clips, unseen, short)}
    return LeftOut(
        scored=scored,
        lasting=long,
        clip_frames=[found.frames for _, found in alone],
        clip_labels=[clips.rows["label"].iloc[trial.row] for trial, _ in alone],
        brief_frames={label: [found.frames for _, found in pairs] for label, pairs in brief.items()},
    )


def save(network: FrameNetwork, settings: EventSettings, models_dir: Path) -> None:
    """Write models/detector: weights, and settings with the version of both."""
    folder = Path(models_dir) / "detector"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in network.weights.items()}
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    events = asdict(settings)
    version = hashlib.sha256(f"{digest} {json.dumps(events, sort_keys=True)}".encode()).hexdigest()[:12]
    written = {
        "version": version,
        "weights_sha256": digest,
        "events": events,
        "silence_peak": SILENCE_PEAK,
        "frame_seconds": HOP_SECONDS,
        "look_ahead_seconds": LOOK_AHEAD_SECONDS,
        "labels": list(EVENT_LABELS),
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _detected(
    clips: Clips, detectors: Detector | dict[str, Detector], trials: Callable[..., Iterator[Trial]]
) -> Iterator[tuple[Trial, Detection]]:
    """Yield trials with what a detector, or of several the one trained without their corpus group, makes of them."""
    groups = splits.corpus_group(clips.rows["source"]).to_numpy()
    for trial in trials(clips.rows, clips.waveforms):
        detector = detectors if isinstance(detectors, Detector) else detectors[groups[trial.row]]
        yield trial, detector.detect(trial.waveform)


def _write_for_pages(clips: Clips, hours: Hours, singles: Singles) -> None:
    """Write what the report's threshold chooser moves along, and what its listening page plays."""
    written = json.loads((config.MODELS_DIR / "detector" / SETTINGS_FILE).read_text(encoding="utf-8"))
    curves.write(config.STUDIES_DIR / curves.FILE_NAME, hours, written)
    recordings = []
    for name, (some, pairs) in singles.items():
        rows = some.rows.to_dict("records")
        recordings += [listening.of_clip(f"{name}_clip", rows[t.row], t.waveform, found) for t, found in pairs]
        recordings += [listening.of_soundscape(f"{name}_soundscape", scored) for scored in hours[name]]
    listening.write(config.STUDIES_DIR / listening.FILE_NAME, recordings, clips.rows, written["version"])


def _figures(
    clips: Clips,
    shipped: Detector,
    unseen: dict[str, Detector],
    *,
    hours: Hours,
    lasting: Hours,
    singles: Singles,
    ensemble: Predicted,
) -> tuple[dict, dict[str, pd.DataFrame]]:
    test = singles["test"][0]
    free = detection.score(bench.cry_free(test.rows, test.waveforms), shipped)
    sustained = {name: detection.sustained_figures(scored, shipped.settings.events) for name, scored in lasting.items()}
    rooms = alarm_rates(clips, list(_detected(clips, unseen, bench.in_a_room)))
    files = {name: file_labels(*some, ensemble[name]) for name, some in singles.items()}
    figures = {
        "windows": {"screams_1s": _screams(clips, test, shipped, unseen)},
        "alarms_by_kind": {row.pop("kind"): row for row in rooms.to_dict("records")},
        "long_recordings": {
            **{name: detection.headline(scored) for name, scored in hours.items()},
            "delay_seconds": detection.delay_figures(hours["test"]),
            "what": {name: detection.description(scored) for name, scored in hours.items()},
        },
        "cry_free": _cry_free(free),
        "sustained": sustained["test"] | {"left_out": sustained["left_out"]},
        "files": {name: figure for name, (figure, _) in files.items()},
        "versions": {"detector": shipped.settings.version},
    }
    tables = {
        "detector_alarms_by_kind": rooms,
        "detector_cry_free": detection.alarm_table(free),
        "detector_timeline": detection.example(hours["test"]),
        **{f"detector_files_{name}": table for name, (_, table) in files.items()},
    }
    for name, scored in hours.items():
        tables[f"detector_curve_{name}"] = detection.curve(scored, shipped.settings.events)
        tables[f"detector_alarms_{name}"] = detection.alarm_table(scored)
        tables[f"detector_references_{name}"] = detection.references(scored)
        for by in ("snr_db", "background"):
            tables[f"detector_recall_by_{by}_{name}"] = detection.recall_table(scored, by=by)
    return figures, tables


def _screams(clips: Clips, test: Clips, shipped: Detector, unseen: dict[str, Detector]) -> dict:
    both: dict[str, tuple[Clips, Detector | dict[str, Detector]]] = {
        "test": (test, shipped),
        "left_out": (clips, unseen),
    }
    return {
        str(seconds): {
            name: recall(some, list(_detected(some, detectors, functools.partial(bench.screams, seconds=seconds))))
            for name, (some, detectors) in both.items()
        }
        for seconds in bench.WINDOW_SECONDS
    }


def recall(clips: Clips, pairs: Sequence[tuple[Trial, Detection]]) -> dict:
    """Return the share of screams that an event of screaming finds: value, low, high, n_clips, n_groups."""
    found = [
        any(
            event.label == "screaming"
            and overlap(event, Event(trial.onset_seconds, trial.offset_seconds, event.label), NEAR_SECONDS)
            for event in result.events
        )
        for trial, result in pairs
    ]
    return _share(clips, [trial.row for trial, _ in pairs], np.array(found))


def alarm_rates(clips: Clips, pairs: Sequence[tuple[Trial, Detection]]) -> pd.DataFrame:
    """Return how many clips of each kind of normal sound raise an alarm: kind, value, low, high, n_clips, n_alarms."""
    rows, alarms = [trial.row for trial, _ in pairs], np.array([bool(result.events) for _, result in pairs])
    kinds = clips.rows["subtype"].iloc[rows].to_numpy()
    table = []
    for kind in sorted(set(kinds)):
        here = np.flatnonzero(kinds == kind)
        figure = _share(clips, [rows[place] for place in here], alarms[here])
        table.append({"kind": kind} | figure | {"n_alarms": int(alarms[here].sum())})
    return pd.DataFrame(table)


def _by_ensemble(inputs: Inputs) -> Predicted:
    """Return by clip what the ensemble predicts for test clips, and for clips of corpora that it was fitted without."""
    rows, left_out = inputs.left_out("clip")
    predicted = {"test": (inputs.rows("test"), inputs.test_predictions), "left_out": (rows, left_out)}
    return {
        name: dict(zip(some["clip_id"], members["ensemble"], strict=True))
        for name, (some, members) in predicted.items()
    }


def file_labels(
    clips: Clips, pairs: Sequence[tuple[Trial, Detection]], ensemble: Mapping[str, np.ndarray]
) -> tuple[dict, pd.DataFrame]:
    """Return macro F1 of a file's label over single clips that `ensemble` has rows (3,) of; and all labels."""
    columns = ["clip_id", "group_id", "source", "subtype", "label", "duration_seconds"]
    rows = clips.rows.iloc[[trial.row for trial, _ in pairs]][columns].assign(found=[result for _, result in pairs])
    table = rows[rows["clip_id"].isin(ensemble)]
    table = table.assign(predicted=[_file_label(row, ensemble[row["clip_id"]]) for row in table.to_dict("records")])
    table = table.drop(columns=["duration_seconds", "found"])
    one_hot = np.eye(len(config.CLASS_NAMES))[[config.CLASS_ID[name] for name in table["predicted"]]]
    scores = evaluation.score(one_hot, manifest.class_ids(table), table["group_id"].to_numpy())
    f1 = {label: scores["per_class"][label]["f1"] for label in config.CLASS_NAMES}
    counts = {"n_clips": scores["n_clips"], "n_groups": scores["n_groups"]}
    return {"macro_f1": scores["macro_f1"] | counts, "f1": f1}, table


def _file_label(row: Mapping[str, Any], ensemble: np.ndarray) -> str:
    if row["duration_seconds"] > MAX_SEGMENT_SECONDS:
        return row["found"].label
    return row["found"].label_with(config.CLASS_NAMES[combined_with(row["found"].frames, ensemble).argmax()])


def _share(clips: Clips, rows: Sequence[int], found: np.ndarray) -> dict:
    figure = detection.share(clips.rows.iloc[list(rows)].assign(found=found), "found")
    return {("n_clips" if name == "n_events" else name): value for name, value in figure.items()}


def _cry_free(scored: Sequence[detection.Scored]) -> dict:
    """Return hours and false alarms per hour of both labels together, by background."""
    result = {}
    for background, here in detection.by_background(scored).items():
        counts = np.asarray(sum(detection.alarm_counts(here, label) for label in EVENT_LABELS))
        counts[:, 1] /= len(EVENT_LABELS)
        n_events, hours = counts.sum(axis=0)
        n = {"n_events": int(n_events), "n_clips": detection.n_background_clips(here), "n_groups": len(here)}
        rate = evaluation.bootstrap(counts, detection.ratio) | n
        result[background] = {"hours": float(hours), "false_alarms_per_hour": rate}
    return result
