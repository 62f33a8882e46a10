import numpy as np
import pytest

from lib import config, waveforms


def test_a_tone_is_brightest_at_its_own_mel(tone):
    mel = waveforms.log_mel(tone(1000, 1.0))
    loudest = mel.frequencies_hz[mel.power_db.mean(axis=1).argmax()]
    assert abs(loudest - 1000) < 80
    assert mel.power_db.shape[0] == len(mel.frequencies_hz) == 64
    assert mel.power_db.shape[1] == pytest.approx(1.0 / mel.hop_seconds, abs=2)


def test_decibels_are_below_the_peak_and_silence_is_the_floor(tone):
    mel = waveforms.log_mel(tone(500, 0.5) * 0.01)
    assert mel.power_db.max() == pytest.approx(0.0) and mel.power_db.min() >= waveforms.FLOOR_DB
    assert (waveforms.log_mel(np.zeros(8000, np.float32)).power_db == waveforms.FLOOR_DB).all()


def test_frames_keep_their_length_in_seconds_at_another_rate(tone):
    assert waveforms.log_mel(tone(500, 1.0), sample_rate_hz=8000).hop_seconds == pytest.approx(0.01)


def test_one_sample_is_enough_and_none_is_refused():
    assert waveforms.log_mel(np.ones(1, np.float32)).power_db.shape[1] >= 1
    for waveform in (np.zeros(0, np.float32), np.zeros((2, 100), np.float32)):
        with pytest.raises(ValueError, match="shape"):
            waveforms.log_mel(waveform)


RNG = np.random.default_rng(7)
TIMES = np.arange(10 * 16_000) / 16_000


@pytest.mark.parametrize(
    ("waveform", "moves"),
    [
        (np.zeros(160_000), False),
        (np.full(160_000, 0.3), False),
        (RNG.integers(-1, 2, 160_000) / 32_768, False),  # dither
        (0.1 * np.sin(2 * np.pi * 50 * TIMES), False),  # hum
        (RNG.normal(0, 1e-3, 160_000), True),  # the steadiest sound of a room
        (np.where(TIMES < 9, 0.0, np.sin(3000 * TIMES)), True),
        (np.zeros(100), False),
    ],
)
def test_a_level_moves_in_a_room_alone(waveform, moves):
    low, high = waveforms.level_range_db(waveform.astype(np.float32))
    assert (high - low > config.STILL_DB) == moves
    assert config.LEVEL_FLOOR_DB <= low <= high <= 0


def test_clipped_share_counts_samples_at_full_scale():
    waveform = np.clip(2 * np.sin(TIMES), -1, 1).astype(np.float32)
    assert waveforms.clipped_share(waveform) == pytest.approx(2 / 3, abs=0.05)
    assert waveforms.clipped_share(waveform * np.float32(0.9)) == 0
