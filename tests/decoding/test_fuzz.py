"""2,000 seeded mutants; `python -m tests.decoding.fuzz_audio --mutants 200000` is the long form."""

from __future__ import annotations

from fuzz_audio import fuzz, mutant


def test_a_mutant_can_be_made_again():
    assert mutant(1, 17) == mutant(1, 17)
    assert mutant(1, 17) != mutant(1, 18)


def test_mutants_are_accepted_or_refused_by_name():
    summary = fuzz(1, range(2_000))
    assert summary.n_mutants == 2_000
    assert not summary.uncaught
    assert not summary.unfit
    assert not summary.hangs
    assert min(summary.outcomes["accepted"], summary.outcomes["TruncatedAudio"], summary.outcomes["DamagedAudio"]) > 50
