import numpy as np
import pytest

from lib import waveforms


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
