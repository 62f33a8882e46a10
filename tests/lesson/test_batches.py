"""Training batches: the same again for the same seed, and balanced as the weights say."""

from __future__ import annotations

import numpy as np

from lib import config
from lib.batches import ClipSampler, augmented_pairs


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


def test_a_crop_comes_beside_an_augmented_copy(rng):
    clips = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (8_000, 40_000)]

    def pairs(p_changed):
        return augmented_pairs(
            clips, np.arange(2), np.ones(2), n_samples=16_000, p_changed=p_changed,
            batch_size=6, n_clips_per_epoch=12, seed=3,
        )  # fmt: skip

    same, changed = (np.stack(pairs(p).draw(0, 1)[0]) for p in (0.0, 1.0))
    assert len(pairs(0.0)) == 2 and same.shape == (6, 2, 16_000)
    np.testing.assert_array_equal(same[:, 0], same[:, 1])
    assert not any(np.array_equal(crop, copy) for crop, copy in changed)
    np.testing.assert_array_equal(changed, np.stack(pairs(1.0).draw(0, 1)[0]))


def test_only_normal_clips_are_mixed_into_a_copy(rng, monkeypatch):
    class_ids, used = np.array([config.CLASS_ID[label] for label in ("crying", "normal", "screaming")]), []
    clips = [np.full(100, row, dtype=np.float32) for row in range(3)]

    def changed(crop, _rng, *, background, settings):
        used.extend(float(clip[0]) for clip in background)
        return crop

    monkeypatch.setattr("lib.augment.augment", changed)
    batches = augmented_pairs(
        clips, class_ids, np.ones(3), n_samples=50, p_changed=1.0, batch_size=4, n_clips_per_epoch=4, seed=0
    )
    batches.draw(0, 0)
    assert set(used) == {1.0}
