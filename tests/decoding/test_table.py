"""Every case of the corpus of odd audio, and 2,000 seeded mutants: a named error or an acceptable result."""

from __future__ import annotations

import time

import numpy as np
import pytest
from bad_audio import CASES
from fuzz_audio import fuzz, mutant

from lib import audio

LIMIT_SECONDS = 20.0  # by the clock of a busy machine; the fuzz test counts what takes over 2 s


def test_the_corpus_is_large_and_its_names_are_unique():
    assert len(CASES) >= 344
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
        recording = audio.read(path)
        audio.check_waveform(recording.waveform, sample_rate_hz=16_000)
        assert len(recording.waveform) / 16_000 == pytest.approx(case.expected.seconds, abs=0.02)
        assert bool(recording.remarks) == (case.expected.remark is not None), recording.remarks
        assert (case.expected.remark or "") in "; ".join(recording.remarks)
        rms_db = 20 * np.log10(np.sqrt(np.square(recording.waveform, dtype=np.float64).mean()) + 1e-12)
        if case.expected.rms_db == -np.inf:
            assert rms_db < -120
        elif case.expected.rms_db is not None:
            assert rms_db == pytest.approx(case.expected.rms_db, abs=1.0)
    assert time.monotonic() - start < LIMIT_SECONDS


def test_mutants_are_accepted_or_refused_by_name():
    assert mutant(1, 17) == mutant(1, 17) != mutant(1, 18)
    outcomes, faults = fuzz(1, range(2_000))
    assert outcomes.total() == 2_000
    assert not faults
    assert min(outcomes["accepted"], outcomes["DamagedAudio"]) > 50
