"""The detector: the same frames and events however a stream is cut, silence for nothing, any length."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lib import audio, config, detector
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from lib.detector import Detection, Detector, DetectorSettings, FrameNetwork, FrameStream
from lib.events import Event, EventSettings
from lib.networks import patches
from lib.networks.acoustics import N_FEATURES

SETTINGS = DetectorSettings(EventSettings.create(on=0.55, off=0.45, min_seconds=0.48, merge_seconds=0.96))
N_EMBEDDING, N_IN = 1024, 12


def embed_by_spectrum(patches):
    """Stand in for YAMNet: magnitudes of 1,024 bins, each row from its own patch alone."""
    return np.abs(np.fft.rfft(patches, axis=1))[:, :N_EMBEDDING].astype(np.float32)


def random_network(n_members=2, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    weights = {"component_w": draw(6, N_EMBEDDING), "component_b": draw(6), "silence": draw(N_EMBEDDING)}
    weights |= {"audioset_w": draw(5, N_EMBEDDING), "audioset_b": draw(5)}
    weights |= {"acoustic_mean": draw(N_FEATURES), "acoustic_spread": np.full(N_FEATURES, 2, np.float32)}
    for member in range(n_members):
        own = {"embedding_w": draw(4, 6), "embedding_b": draw(4), "score_w": draw(4, 5), "score_b": draw(4)}
        own |= {"acoustic_w": draw(3, N_FEATURES), "acoustic_b": draw(3)}
        own |= {"conv1_w": draw(7, N_IN, 5), "conv1_b": draw(7), "conv2_w": draw(7, 7, 5), "conv2_b": draw(7)}
        own |= {"out_w": draw(2, 7) * 4, "out_b": draw(2)}
        weights |= {f"{member}.{name}": value for name, value in own.items()}
    return FrameNetwork(weights)


@pytest.fixture(scope="module")
def small():
    return Detector(embed_by_spectrum, random_network(), SETTINGS)


def without_memory(detector):
    """Return a detector that computes patches again that the given one may have kept."""
    return replace(detector)


def wandering_noise(seed, seconds):
    """Return noise whose level and colour change, with stretches of digital silence."""
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * SAMPLE_RATE_HZ)
    level = np.repeat(np.maximum(rng.random(n_samples // 6000 + 1) - 0.3, 0) ** 2, 6000)[:n_samples]
    return (level * rng.standard_normal(n_samples).clip(-1, 1)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    seconds=st.floats(0.1, 20),
    cuts=st.lists(st.floats(0, 1), max_size=12),
)
def test_any_cutting_gives_the_same_frames_and_events(small, seed, seconds, cuts):
    samples = wandering_noise(seed, seconds)
    whole = without_memory(small).detect(samples)
    parts = np.split(samples, sorted(round(cut * len(samples)) for cut in cuts))
    cut = without_memory(small).detect(parts)
    assert cut.events == whole.events
    np.testing.assert_array_equal(cut.frames, whole.frames)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), chunk_seconds=st.floats(5, 15), n_chunks=st.integers(2, 4))
def test_a_chunk_with_the_one_before_gives_the_frames_of_the_whole_stream(small, seed, chunk_seconds, n_chunks):
    n_chunk = round(chunk_seconds * SAMPLE_RATE_HZ)
    samples = wandering_noise(seed, n_chunks * chunk_seconds)[: n_chunks * n_chunk]
    known = []
    for number in range(n_chunks):
        start = max(0, number - 1) * n_chunk
        given_samples = samples[start : (number + 1) * n_chunk]
        first, frames = small.frames(given_samples, first_sample=start, is_last=number == n_chunks - 1)
        assert first <= len(known)
        known += list(frames[len(known) - first :])
    np.testing.assert_array_equal(known, without_memory(small).detect(samples).frames)


def test_a_frame_is_known_once_its_look_ahead_is_in(small):
    stream = FrameStream(small)
    n_needed = PATCH_HOP_SAMPLES + PATCH_SAMPLES  # the patch at the frame's start and the one after
    assert len(stream.push(wandering_noise(1, 30)[: n_needed - 1])) == 0
    assert len(stream.push(np.zeros(1, np.float32))) == 1
    assert n_needed / SAMPLE_RATE_HZ - detector.HOP_SECONDS == pytest.approx(detector.LOOK_AHEAD_SECONDS)
    assert detector.LOOK_AHEAD_SECONDS <= 1.0


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.48, 0.975, 1.0, 3.7])
def test_frames_cover_a_recording_of_any_length_and_no_more(small, seconds):
    samples = wandering_noise(3, seconds)
    assert len(small.detect(samples).frames) == -(-len(samples) // PATCH_HOP_SAMPLES)


def test_an_empty_stream_has_no_frames_and_no_events(small):
    found = small.detect(np.empty(0, np.float32))
    assert found.frames.shape == (0, 2)
    assert found.events == []
    assert found.label == "normal"


def test_patches_that_a_stream_brings_again_are_described_once(small, monkeypatch, rng):
    stream, given_to = (0.1 * rng.standard_normal(16 * PATCH_HOP_SAMPLES)).astype(np.float32), []

    def embed(patches):
        given_to.append(len(patches))
        return embed_by_spectrum(patches)

    counted = Detector(embed, small.network, SETTINGS)
    counted.frames(stream[: 10 * PATCH_HOP_SAMPLES], first_sample=0, is_last=False)
    _, known = counted.frames(stream, first_sample=0, is_last=False)
    assert given_to == [8, 6]
    np.testing.assert_array_equal(known, small.detect(stream).frames[: len(known)])
    monkeypatch.setattr(patches, "MAX_KEPT", 2)
    counted.detect(stream / 2)
    given_to.clear()
    counted.detect(stream / 2)
    assert given_to == [13, 1]  # two are kept: the last on the grid, and the one that ends with the stream, until then


def test_silence_is_never_embedded_and_sound_is(small):
    given_to = []

    def embed(patches):
        given_to.append(len(patches))
        return embed_by_spectrum(patches)

    counted = Detector(embed, small.network, SETTINGS)
    counted.detect(np.zeros(30 * SAMPLE_RATE_HZ, np.float32))
    assert given_to == []
    counted.detect(np.linspace(5, 6, 2 * SAMPLE_RATE_HZ, dtype=np.float32) / 32768)
    assert sum(given_to) == 4  # three patches on the grid, and one that ends with the stream


def test_a_stream_keeps_no_more_than_a_few_patches(small):
    stream = FrameStream(small)
    for seed in range(6):
        stream.push(wandering_noise(seed, 100))
        assert len(stream._held) < PATCH_SAMPLES
        assert len(stream._tail) <= PATCH_SAMPLES
        assert len(stream._patches) <= detector.PAST_OF_HIDDEN + detector.FUTURE_PATCHES


def test_the_label_of_a_recording_is_that_of_its_strongest_event():
    events = [Event(0, 2, "crying", 0.7), Event(5, 6, "screaming", 0.9), Event(8, 9, "crying", 0.8)]
    assert Detection(np.empty((0, 2)), events).label == "screaming"
    assert Detection(np.empty((0, 2)), []).label == "normal"


@pytest.mark.parametrize(
    ("window", "events", "expected"),
    [
        ("screaming", [], "screaming"),  # an event too short to count
        ("crying", [Event(0, 9, "screaming", 0.9)], "crying"),
        ("normal", [Event(3, 4, "screaming", 0.9), Event(5, 7, "crying", 0.7)], "screaming"),
        ("normal", [], "normal"),
    ],
)
def test_one_window_is_normal_only_where_there_is_no_event(window, events, expected):
    assert Detection(np.empty((0, 2)), events).label_with(window) == expected


def test_the_frames_of_a_window_are_those_that_overlap_it():
    frames, hop = np.arange(20.0).reshape(10, 2), PATCH_HOP_SAMPLES
    assert detector.frames_between(frames, 2 * hop, 4 * hop)[:, 0].tolist() == [4, 6]
    assert detector.frames_between(frames, 2 * hop + 1, 4 * hop + 1)[:, 0].tolist() == [4, 6, 8]
    assert detector.frames_between(frames, 2 * hop, 4 * hop, first_frame=3)[:, 0].tolist() == [0]
    assert detector.frames_between(frames, 8 * hop, 99 * hop)[:, 0].tolist() == [16, 18]


@pytest.mark.parametrize("seconds", [0.3, 1.3, 7.77])
def test_no_event_ends_after_the_recording(small, seconds):
    eager = replace(small, settings=DetectorSettings(EventSettings.create(on=0.01, off=0.01)))
    samples = wandering_noise(6, seconds)
    ends = [event.offset_seconds for event in eager.detect(samples).events]
    assert max(ends) == pytest.approx(len(samples) / SAMPLE_RATE_HZ, abs=1e-6)


def test_probabilities_have_three_decimals_and_both_labels_can_be_true(small):
    frames = small.detect(wandering_noise(5, 20)).frames
    np.testing.assert_array_equal(frames, np.round(frames, 3))
    assert ((frames >= 0) & (frames <= 1)).all()


def test_a_folder_without_a_detector_is_named(tmp_path):
    with pytest.raises(config.MissingCheckpointError, match="detector"):
        Detector.load(tmp_path, embed=embed_by_spectrum)


RELEASED = config.MODELS_DIR / "detector"


@pytest.mark.parametrize("part", ["", "{", "[]", '{"version": "1", "events": {}}', '"label"'])
def test_settings_that_were_copied_in_part_are_one_line(part, tmp_path):
    shutil.copytree(RELEASED, tmp_path / "detector")
    if part == '"label"':
        whole = json.loads((RELEASED / "settings.json").read_text(encoding="utf-8"))
        del whole["events"]["on"]["crying"]
        part = json.dumps(whole)
    (tmp_path / "detector" / "settings.json").write_text(part, encoding="utf-8")
    with pytest.raises(ValueError, match=r"settings\.json holds no whole settings"):
        Detector.load(tmp_path, embed=embed_by_spectrum)


def test_a_detector_of_an_earlier_version_is_named(tmp_path):
    weights = {"silence": np.zeros(N_EMBEDDING, np.float32)}
    (tmp_path / "detector").mkdir()
    save_file(weights, tmp_path / "detector" / "model.safetensors")
    with pytest.raises(ValueError, match="earlier version"):
        Detector.load(tmp_path)


def test_the_released_settings_are_those_of_the_released_weights():
    written = json.loads((RELEASED / detector.SETTINGS_FILE).read_text(encoding="utf-8"))
    loaded = Detector.load(embed=embed_by_spectrum)
    assert loaded.settings == DetectorSettings(EventSettings(**written["events"]), written["version"])
    assert written["look_ahead_seconds"] == pytest.approx(detector.LOOK_AHEAD_SECONDS)
    assert sum(path.stat().st_size for path in RELEASED.iterdir()) < 5e6


@pytest.fixture(scope="module")
def released():
    return Detector.load()


@pytest.mark.hub
@pytest.mark.slow
def test_the_silence_gate_changes_no_frame_by_more_than_it_says(released, monkeypatch):
    """The loudest that the gate lets through, noise of four steps of 16 bit, against YAMNet's own answer."""
    rng = np.random.default_rng(0)
    n_samples = 12 * SAMPLE_RATE_HZ
    steps = rng.integers(-4, 5, n_samples)
    for faint in (np.zeros(n_samples), steps / 32768, np.sign(steps) / 32768):
        gated = without_memory(released).detect(faint.astype(np.float32)).frames
        with monkeypatch.context() as patched:
            patched.setattr(detector, "SILENCE_PEAK", -1.0)
            asked = without_memory(released).detect(faint.astype(np.float32)).frames
        assert np.abs(gated - asked).max() <= detector.SILENCE_BOUND


@pytest.mark.hub
def test_released_yamnet_gives_the_same_bits_in_batches_of_any_size(released):
    patches = wandering_noise(9, 8.0)[: 16 * PATCH_HOP_SAMPLES].reshape(-1, 2 * PATCH_HOP_SAMPLES)
    patches = np.pad(patches, ((0, 0), (0, PATCH_SAMPLES - patches.shape[1])))
    together = released.embed(patches)
    apart = np.concatenate([released.embed(patch[None]) for patch in patches])
    np.testing.assert_array_equal(together, apart)


CASES = Path(__file__).resolve().parent.parent / "data" / "cases"


@pytest.mark.hub
@pytest.mark.parametrize("name", ["scream_2s_alone.wav", "scream_2s_at_0s.flac"])
def test_a_scream_is_found_alone_and_in_ten_seconds_of_room_noise(released, name):
    found = released.detect(audio.load(CASES / name))
    assert found.label == "screaming"
    assert min(event.onset_seconds for event in found.events if event.label == "screaming") <= 1


@pytest.fixture
def cries(mirror_dir):
    """Three infants recorded with full bandwidth, 6 s each."""
    paths = sorted(mirror_dir.glob("theunissenlab/BabyCriesDiscomfortPain/*/OpenData/cry_sequences_22babies/*.wav"))
    return [audio.load(path) for path in paths[:3]]


def room(seconds, level_db=-57.0):
    noise = np.random.default_rng(4).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    return (noise * 10 ** (level_db / 20)).astype(np.float32)


@pytest.mark.hub
@pytest.mark.real_audio
@pytest.mark.parametrize("seconds", [3, 5, 8, 10, 15])
def test_length_does_not_decide_the_label(released, mirror_dir, seconds):
    (scream,) = map(audio.load, mirror_dir.glob("LadyTuna/*/*/Assets/positive/damm_3.wav"))
    stream, at = room(seconds), (seconds - 3) * SAMPLE_RATE_HZ // 2
    stream[at : at + len(scream)] += scream
    found = released.detect(stream)
    assert found.label == "screaming"
    assert {event.label for event in found.events} == {"screaming"}


@pytest.mark.hub
@pytest.mark.real_audio
def test_a_minute_with_one_cry_is_crying_where_the_cry_is(released, cries):
    for cry in cries:
        minute = room(60)
        minute[27 * SAMPLE_RATE_HZ : 27 * SAMPLE_RATE_HZ + len(cry)] += cry
        found = released.detect(minute)
        assert found.label == "crying"
        strongest = max(found.events, key=lambda event: event.peak_probability)
        assert 26 <= strongest.onset_seconds <= 29
        assert strongest.offset_seconds <= 27 + len(cry) / SAMPLE_RATE_HZ + 1.5


@pytest.mark.hub
@pytest.mark.real_audio
def test_a_second_of_crying_is_found_between_exact_zeros_and_at_the_very_end(released, mirror_dir):
    """As a noise gate leaves it (one of eight infants before there was a detector), and as the last of a file."""
    paths = sorted(mirror_dir.glob("theunissenlab/BabyCriesDiscomfortPain/*/OpenData/cry_sequences_22babies/*.wav"))
    for cry in map(audio.load, paths[:8]):
        start = max(0, int(np.argmax(np.abs(cry))) - SAMPLE_RATE_HZ // 2)
        second = cry[start : start + SAMPLE_RATE_HZ]
        gated, late = np.zeros(10 * SAMPLE_RATE_HZ, np.float32), room(6)
        gated[4 * SAMPLE_RATE_HZ : 4 * SAMPLE_RATE_HZ + len(second)] = second
        late[len(late) - len(second) :] += second
        assert released.detect(gated).label == "crying"
        found = released.detect(late)
        assert found.label == "crying"
        assert max(event.offset_seconds for event in found.events) <= 6
