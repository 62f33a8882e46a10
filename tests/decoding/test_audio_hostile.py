"""Every case of the corpus of bad audio, held to its named error or its acceptable result."""

from __future__ import annotations

import time

import numpy as np
import pytest
from bad_audio import CASES, Silence, Sound

from lib import audio

LIMIT_SECONDS = 20.0  # by the clock of a busy machine; the fuzz test counts what takes over 2 s


def test_the_corpus_is_large_and_its_names_are_unique():
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_audio(case, tmp_path):
    path = case.build(tmp_path)
    start = time.monotonic()
    if isinstance(case.expected, type):
        with pytest.raises(case.expected) as caught:
            audio.load(path)
        assert type(caught.value) is case.expected
        assert len(str(caught.value).splitlines()) == 1
        str(caught.value).encode()
    else:
        waveform = audio.load(path)
        audio.check_waveform(waveform, sample_rate_hz=16_000)
        assert len(waveform) / 16_000 == pytest.approx(case.expected.seconds, abs=0.05)
        rms = np.sqrt(np.square(waveform, dtype=np.float64).mean())
        if isinstance(case.expected, Silence):
            assert rms < 1e-6
        if isinstance(case.expected, Sound):
            assert 20 * np.log10(rms) == pytest.approx(case.expected.rms_db, abs=1.0)
    assert time.monotonic() - start < LIMIT_SECONDS
