"""Recordings of the raw manifest to clips on disk: no padding, no offset, one level; what is left out is tabulated."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import audio, config, manifest, waveforms

VERSION = 2  # raise it when the same recording gives other clips: kept files of older versions are then left alone
INDEX_FILE = "index.json"
MEASURES = ("level_db", "peak_db", "clipped_share", "zero_share")
SILENT_STEP = 2 / 32768  # digital silence: no further than two steps of 16 bit from the first (last) sample
SILENCE_KEPT_SECONDS = 0.1
FLOOR_DB = -100.0  # below the step of 16 bit (-90 dB): what silence is measured as
REFERENCE_PITCH_HZ = 350.0  # between infant cries (median near 450 Hz) and adult voices
MAX_PITCH_SHIFT_SEMITONES = 4.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How recordings become clips. The last two are off unless a comparison on unseen corpora supports them."""

    segment_seconds: float = 10.0
    max_segments_per_recording: int = 6  # evenly spread: minutes of ambience must not drown the rest
    trim_padding: bool = True
    reduce_noise: bool = False
    normalise_pitch: bool = False

    def digest(self) -> str:
        """Return a short name for these options, the same in every run."""
        text = json.dumps([VERSION, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Processed:
    """What became of the recordings.

    `clips` has a row per clip: the manifest's columns but split, recording_id, and `MEASURES` before and after
    (`..._before`, `..._after`). `attrition` has a row per recording: clip_id, source, label, outcome, reason,
    n_segments, n_clips.
    """

    clips: pd.DataFrame
    attrition: pd.DataFrame


def process_recording(recording: Row, *, data_dir: Path, options: Options) -> Row:
    """Process one recording of the raw manifest and write its clips.

    Returns
    -------
    dict
        JSON-able: outcome ("kept", "not decodable" or "silent"), reason, n_segments, and clips: one dict each with
        the manifest's columns that differ from the recording's, and the measures.
    """
    try:
        waveform = audio.load(data_dir / recording["path"])
    except audio.AudioError as error:
        return _lost("not decodable", f"{type(error).__name__}: {error.what}", 0)
    first, last = find_sound(waveform) if options.trim_padding else (0, len(waveform))
    bounds, n_segments = choose_segments(last - first, options)
    clips = []
    for number, (start, stop) in enumerate(bounds):
        clip_id = recording["clip_id"] + (f"-{number:02d}" if n_segments > 1 else "")
        segment = waveform[first + start : first + stop]
        clip = _process_segment(segment, clip_id, data_dir=data_dir, options=options)
        if clip:
            clips.append(clip | {"start_seconds": round((first + start) / config.SAMPLE_RATE_HZ, 3)})
    if not clips:
        return _lost("silent", "every sample is zero", n_segments)
    return {"outcome": "kept", "reason": "", "n_segments": n_segments, "clips": clips}


def process_all(
    raw: pd.DataFrame,
    options: Options,
    *,
    data_dir: Path = config.DATA_DIR,
    n_workers: int = 2,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Processed:
    """Process every recording of a raw manifest; what an earlier run left intact is not done again.

    The manifest's paths begin at `data_dir`; `n_workers` processes (1: this one); `progress` wraps the iterable of
    results, for example ``tqdm``.
    """
    index_path = data_dir / "processed" / INDEX_FILE
    index = json.loads(index_path.read_text(encoding="utf-8")) if index_path.is_file() else {}
    recordings = raw.sort_values("clip_id").to_dict("records")
    keys = [f"{item['clip_id']}:{item['sha256']}:{options.digest()}" for item in recordings]
    work = functools.partial(_reuse_or_process, data_dir=data_dir, options=options)
    tasks = [(recording, index.get(key)) for recording, key in zip(recordings, keys, strict=True)]
    outcomes = list(progress(_run(work, tasks, n_workers)))
    # What could not be decoded is tried again next time: the file may have been replaced.
    done = {key: outcome for key, outcome in zip(keys, outcomes, strict=True) if outcome["outcome"] == "kept"}
    config.write_whole(index_path, json.dumps(index | done).encode())
    return _drop_duplicates(_tabulate(recordings, outcomes))


def process_waveform(waveform: np.ndarray, options: Options) -> np.ndarray:
    """Turn one segment (n_samples,) as recorded into what the networks are given: `waveforms.prepare`."""
    if options.reduce_noise:
        waveform = reduce_noise(waveform)
    if options.normalise_pitch:
        waveform = normalise_pitch(waveform)
    return waveforms.prepare(waveform)


def find_sound(waveform: np.ndarray) -> tuple[int, int]:
    """Return the bounds of a recording without the digital silence it was padded with, but for 0.1 s on either side.

    Some sources pad everything to one length and others do not, so padding would predict the class. Quiet room noise
    is not digital silence and stays. What is silent all through is returned whole.
    """
    starts = np.flatnonzero(np.abs(waveform - waveform[0]) > SILENT_STEP)
    ends = np.flatnonzero(np.abs(waveform - waveform[-1]) > SILENT_STEP)
    if not len(starts) or not len(ends):
        return 0, len(waveform)
    n_kept = round(SILENCE_KEPT_SECONDS * config.SAMPLE_RATE_HZ)
    return max(int(starts[0]) - n_kept, 0), min(int(ends[-1]) + 1 + n_kept, len(waveform))


def choose_segments(n_samples: int, options: Options) -> tuple[list[tuple[int, int]], int]:
    """Return the bounds of the segments to keep, evenly spread over the recording, and how many there were."""
    bounds = waveforms.segment_bounds(n_samples, segment_seconds=options.segment_seconds)
    n_kept = min(len(bounds), options.max_segments_per_recording)
    middles = (np.arange(n_kept) + 0.5) * len(bounds) / max(n_kept, 1)  # of n_kept equal stretches of the recording
    return [bounds[int(middle)] for middle in middles], len(bounds)


def measure(waveform: np.ndarray) -> dict[str, float]:
    """Return `MEASURES` of a waveform: RMS level and peak (dBFS), shares of clipped and zero samples."""
    size = np.abs(waveform)
    return {
        "level_db": _decibels(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))),
        "peak_db": _decibels(float(size.max())),
        "clipped_share": float(np.mean(size > 0.999)),
        "zero_share": float(np.mean(size == 0)),
    }


def reduce_noise(waveform: np.ndarray) -> np.ndarray:
    """Spectral gating with a noise floor that follows the recording (Sainburg's noisereduce), at most 12 dB down."""
    import noisereduce  # takes a second to import, and is off by default

    reduced = noisereduce.reduce_noise(y=waveform, sr=config.SAMPLE_RATE_HZ, stationary=False, prop_decrease=0.75)
    return np.nan_to_num(reduced).astype(np.float32)


def normalise_pitch(waveform: np.ndarray) -> np.ndarray:
    """Move the median fundamental towards `REFERENCE_PITCH_HZ`, by 4 semitones at most; unvoiced sound stays."""
    import librosa

    if len(waveform) < 2048:  # 128 ms, a frame of the analysis
        return waveform
    pitch_hz, _, voicing = librosa.pyin(waveform, fmin=80, fmax=1500, sr=config.SAMPLE_RATE_HZ, hop_length=1024)
    is_voiced = (voicing > 0.5) & np.isfinite(pitch_hz)  # pyin's own flag is also set on hum and hiss
    if is_voiced.sum() < 3:
        return waveform
    n_steps = 12 * np.log2(REFERENCE_PITCH_HZ / np.median(pitch_hz[is_voiced]))
    n_steps = float(np.clip(n_steps, -MAX_PITCH_SHIFT_SEMITONES, MAX_PITCH_SHIFT_SEMITONES))
    return librosa.effects.pitch_shift(waveform, sr=config.SAMPLE_RATE_HZ, n_steps=n_steps)


def _lost(outcome: str, reason: str, n_segments: int) -> Row:
    return {"outcome": outcome, "reason": reason, "n_segments": n_segments, "clips": []}


def _process_segment(segment: np.ndarray, clip_id: str, *, data_dir: Path, options: Options) -> Row | None:
    """Process, write and describe one segment; None where nothing but zeros would be written."""
    waveform = process_waveform(segment, options)
    if not np.any(np.rint(waveform * 32768)):
        return None
    sha256 = audio.sha256_of_samples(waveform)
    path = f"processed/{sha256[:2]}/{clip_id}.wav"
    audio.write_pcm16(data_dir / path, waveform)
    clip: Row = {"clip_id": clip_id, "path": path, "sha256": sha256}
    clip["duration_seconds"] = round(len(waveform) / config.SAMPLE_RATE_HZ, 4)
    clip["bandwidth_hz"] = round(waveforms.bandwidth_hz(waveform, config.SAMPLE_RATE_HZ))
    clip |= {f"{name}_before": value for name, value in measure(segment).items()}
    return clip | {f"{name}_after": value for name, value in measure(waveform).items()}


def _reuse_or_process(task: tuple[Row, Row | None], *, data_dir: Path, options: Options) -> Row:
    recording, known = task
    if known is not None and all(_is_intact(clip, data_dir) for clip in known["clips"]):
        return known
    return process_recording(recording, data_dir=data_dir, options=options)


def _is_intact(clip: Row, data_dir: Path) -> bool:
    try:
        return audio.sha256_of_samples(audio.read_pcm16(data_dir / clip["path"])) == clip["sha256"]
    except audio.AudioError:
        return False


def _run(work: Callable[[Any], Row], tasks: list, n_workers: int) -> Iterator[Row]:
    if n_workers == 1:
        yield from map(work, tasks)
        return
    # Spawned, not forked: the parent is a notebook kernel full of threads.
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, tasks, chunksize=16)


def _tabulate(recordings: list[Row], outcomes: list[Row]) -> Processed:
    clips, attrition = [], []
    for recording, outcome in zip(recordings, outcomes, strict=True):
        same = {name: recording[name] for name in ("label", "subtype", "source", "group_id", "licence")}
        for clip in outcome["clips"]:
            clips.append(same | clip | {"sample_rate_hz": config.SAMPLE_RATE_HZ, "recording_id": recording["clip_id"]})
        row = {name: recording[name] for name in ("clip_id", "source", "label")}
        row |= {name: outcome[name] for name in ("outcome", "reason", "n_segments")}
        attrition.append(row | {"n_clips": len(outcome["clips"])})
    columns = [name for name in manifest.COLUMNS if name != "split"] + ["recording_id"]
    columns += [f"{name}_{when}" for when in ("before", "after") for name in MEASURES]
    return Processed(pd.DataFrame(clips, columns=columns), pd.DataFrame(attrition))


def _drop_duplicates(processed: Processed) -> Processed:
    """Keep one of the clips that came out equal, none where their labels differ; say so in the attrition table."""
    clips, attrition = processed.clips, processed.attrition.set_index("clip_id", drop=False)
    labels = clips.groupby("sha256")["label"].transform("nunique")
    dropped = clips.duplicated("sha256") | (labels > 1)
    for recording_id, lost in clips[dropped].groupby("recording_id"):
        attrition.loc[recording_id, "n_clips"] -= len(lost)
        attrition.loc[recording_id, ["outcome", "reason"]] = ["duplicate", f"{len(lost)} clip(s) equal to another's"]
    return Processed(clips[~dropped].reset_index(drop=True), attrition.reset_index(drop=True))


def _decibels(amplitude: float) -> float:
    return round(max(20 * float(np.log10(max(amplitude, 1e-12))), FLOOR_DB), 2)
