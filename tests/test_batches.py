"""Training batches: the same again for the same seed, balanced as the weights say, and mixed in pairs."""

from __future__ import annotations

import numpy as np

from lib.batches import ClipSampler, mixup


def sampler(seed=0):
    clips = [np.full(4, value, dtype=np.float32) for value in range(3)]
    return ClipSampler(clips, np.arange(3), np.array([0.7, 0.3, 0.0]), 100, 1000, None, seed)


def test_a_draw_depends_on_seed_epoch_and_number_alone():
    first, again = sampler().draw(1, 2), sampler().draw(1, 2)
    np.testing.assert_array_equal(first[1], again[1])
    for other in (sampler(1).draw(1, 2), sampler().draw(2, 2), sampler().draw(1, 3)):
        assert not np.array_equal(first[1], other[1])


def test_clips_are_drawn_by_their_weights():
    drawn = np.concatenate([sampler().draw(0, number)[1] for number in range(len(sampler()))])
    assert len(drawn) == 1000
    assert (drawn != 2).all()
    assert abs((drawn == 0).mean() - 0.7) < 0.05


def test_mixup_mixes_sound_and_target_by_one_share(rng):
    values, targets = np.arange(30.0), np.eye(30)
    clips = [np.full(8, value, dtype=np.float32) for value in values]
    mixed, soft = mixup(clips, targets, rng, alpha=1.0)
    np.testing.assert_allclose(
        [clip[0] for clip in mixed], soft @ values, rtol=1e-5, atol=1e-5
    )  # the same share in both
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    assert (soft.argmax(axis=1) == np.arange(30)).all()  # the clip itself stays the louder one
    assert (soft.max(axis=1) < 1).mean() > 0.8


def test_mixup_with_alpha_0_changes_nothing(rng):
    clips, targets = [np.ones(4, dtype=np.float32), np.zeros(4, dtype=np.float32)], np.eye(2)
    mixed, soft = mixup(clips, targets, rng, alpha=0)
    np.testing.assert_array_equal(np.stack(mixed), np.stack(clips))
    np.testing.assert_array_equal(soft, targets)
