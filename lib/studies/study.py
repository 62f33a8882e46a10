"""What the recipe is worth on sources never met: `./run_all.sh study [left-out|seeds|ablation|...]`.

Takes hours on two cores, needs the real recordings and notebooks 01 and 02 run, and writes
`build/studies/tables/*.csv`, which notebook 06 shows. The test groups take part in nothing but the final
left-out figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import audio, augment, config, evaluation, frozen_features, manifest, preprocess, probabilities, splits
from lib.noise import CLEAN, in_noise
from lib.reporting import build, steps
from lib.studies import attention

PROFILE = "left_out"
SEED_PROFILES = ("full", "seed_8", "seed_9")
NOTEBOOKS = ("03_yamnet", "04_wav2vec2")
PROBE_SECONDS = 4.0  # middle of a clip that the pretraining comparison hears
PROBE_STEPS = 600  # of each objective; the released file has had thousands
# Inverse strength of the probe's L2 penalty: on embeddings or frames of Wav2Vec2, on AudioSet voices.
HEAD_C, VOICES_C = 1e-2, 3.0
SEED = 7
MIXUP_ALPHA = 0.4
OPTIONS = {
    "as they are": {},
    "noise reduction": {"reduce_noise": True},
    "pitch normalisation": {"normalise_pitch": True},
}


def left_out() -> pd.DataFrame:
    """Train both networks without each family of sources, and let them answer for it, as recorded and in noise.

    Returns
    -------
    DataFrame
        `probabilities.COLUMNS`, and `probabilities.WHO`: which network, which stage of its notebook and whether that
        is the one kept, and what the clips were heard in (`noise.in_noise`).
    """
    models_dir = _trained(PROFILE)
    tables = [_answers(scheme, models_dir, noise=True) for scheme in splits.left_out_schemes()]
    return pd.concat(tables, ignore_index=True)


def seeds() -> pd.DataFrame:
    """Train both networks again with other seeds, and let them answer for the grouped test split.

    Returns
    -------
    DataFrame
        `probabilities.COLUMNS`, model and seed, that of the full build first.
    """
    tables = []
    for profile in SEED_PROFILES:
        seed = steps.load_parameters(_parameters(profile))["03_yamnet"]["seed"]
        tables.append(_answers("grouped", _trained(profile))[list(probabilities.COLUMNS)].assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def _parameters(profile: str) -> Path:
    return steps.PARAMS_DIR / f"{profile}.yaml"


def _trained(profile: str) -> Path:
    """Run notebooks 03 and 04 of a profile where they are not current; return the folder of their checkpoints."""
    build.train(profile)
    return config.build_dir(profile) / "models"


def _answers(scheme: str, models_dir: Path, *, noise: bool = False) -> pd.DataFrame:
    """Return every checkpoint's probabilities on a scheme's test clips, as recorded and, where asked for, in noise."""
    from lib import wav2vec2, yamnet

    rows = splits.read(scheme, splits=("test",))
    waveforms = manifest.load_waveforms(rows)
    heard = in_noise(rows, waveforms) if noise else {CLEAN[0]: waveforms}
    tables = []
    for model, network in {"yamnet": yamnet, "wav2vec2": wav2vec2}.items():
        kept_dir = models_dir / model / scheme
        kept = config.read_record(kept_dir)["stage"][0]
        stages = {folder.suffix[1:]: folder for folder in sorted((models_dir / model).glob(f"{scheme}.[A-C]"))}
        build.say(f"{scheme}: {len(rows)} clips, {model}, stage {kept} of {', '.join(stages) or 'one'}")
        for stage, folder in (stages or {kept: kept_dir}).items():
            loaded = network.load(folder)
            who = {"model": model, "stage": stage, "kept": stage == kept}
            tables += [
                probabilities.table(rows, network.predict(loaded, clips), model=model, scheme=scheme).assign(
                    **who, condition=name
                )
                for name, clips in heard.items()
            ]
    return pd.concat(tables)


def development_clips() -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Return the rows and waveforms of the train and validation groups."""
    rows = manifest.read(config.MANIFEST_PATH, splits=("train", "validation"))
    return rows, manifest.load_waveforms(rows)


@dataclass(frozen=True)
class Mixture:
    """Clips mixed two by two.

    Parameters
    ----------
    features : ndarray, (n_clips, n_features)
        What a network makes of each mixture.
    partners : ndarray of int, (n_clips,)
        Row that was mixed into each.
    shares : ndarray, (n_clips,)
        Weight of the clip itself and of its label; the partner's is the rest.
    """

    features: np.ndarray
    partners: np.ndarray
    shares: np.ndarray


def probe(
    rows: pd.DataFrame,
    training: Sequence[np.ndarray],
    tested: np.ndarray,
    *,
    c: float = HEAD_C,
    mixture: Mixture | None = None,
) -> np.ndarray:
    """Return probabilities (n_clips, 3), each family's from a logistic regression that never met it.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows.
    training : sequence of ndarray, each (n_clips, n_features)
        Versions of every clip to learn from.
    tested : ndarray, (n_clips, n_features)
        The version to answer for.
    c : float
        Inverse strength of the L2 penalty.
    mixture : Mixture, optional
        One more version to learn from, with two labels a clip.
    """
    class_ids, families = manifest.class_ids(rows), splits.corpus_group(rows["source"]).to_numpy()
    answers = np.full((len(rows), len(config.CLASS_NAMES)), np.nan)
    for name in np.unique(families):
        met = families != name
        weights = np.zeros(len(rows))
        weights[met] = augment.balanced_weights(rows[met], smoothing=0.75, class_smoothing=0.5)
        parts = [(version[met], class_ids[met], weights[met]) for version in training]
        if mixture is not None:
            both = met & met[mixture.partners]
            parts += [
                (mixture.features[both], class_ids[both], (weights * mixture.shares)[both]),
                (mixture.features[both], class_ids[mixture.partners[both]], (weights * (1 - mixture.shares))[both]),
            ]
        features, labels, sample_weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        head = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
        head.fit(features, labels, logisticregression__sample_weight=sample_weight / weights[met].mean())
        answers[~met] = head.predict_proba(tested[~met])
    return answers


def compare(rows: pd.DataFrame, answers: Mapping[str, np.ndarray], column: str) -> pd.DataFrame:
    """Return macro F1 and each class's F1 of every variant, and its paired difference to the first, with intervals."""
    class_ids, groups = manifest.class_ids(rows), rows["group_id"].to_numpy()
    first, table = next(iter(answers.values())), []
    for name, values in answers.items():
        result = evaluation.score(values, class_ids, groups, seed=SEED)
        gain = evaluation.paired_difference(values, first, class_ids, groups, seed=SEED)
        per_class = {f"F1 {label}": f"{result['per_class'][label]['f1']['value']:.3f}" for label in config.CLASS_NAMES}
        figures = {"macro F1": _text(result["macro_f1"], "{:.3f}"), **per_class, "change": _text(gain, "{:+.3f}")}
        table.append({column: name} | figures)
    return pd.DataFrame(table)


def _text(figure: Mapping[str, float], form: str) -> str:
    return f"{form} [{form}, {form}]".format(figure["value"], figure["low"], figure["high"])


def ablation() -> pd.DataFrame:
    """Compare the recipe with variants that lack one piece, on sources never met, YAMNet's weights frozen."""
    from lib import yamnet

    rows, waveforms = development_clips()
    backbone = yamnet.from_hub().with_class_scores()

    def pooled(name: str, versions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        build.say(f"{name}: {len(versions)} clips")
        return yamnet.split_features(frozen_features.of_clips(yamnet, backbone, versions))

    plain, voices = pooled("as they are", waveforms)
    copies = {
        name: pooled(name, _in_processes(partial(_copy, settings=settings), _keyed(rows, waveforms)))[0]
        for name, settings in augment_variants().items()
    }
    answers = {"full recipe": probe(rows, [plain, copies["full recipe"]], plain)}
    answers |= {name: probe(rows, [plain, c], plain) for name, c in copies.items() if name != "full recipe"}
    answers["no copies"] = probe(rows, [plain], plain)
    mixed, partners, shares = mix_clips(waveforms)
    mixture = Mixture(pooled("mixup", mixed)[0], partners, shares)
    answers["with mixup"] = probe(rows, [plain, copies["full recipe"]], plain, mixture=mixture)
    answers["mixup instead of copies"] = probe(rows, [plain], plain, mixture=mixture)
    answers["AudioSet voices alone"] = probe(rows, [voices], voices, c=VOICES_C)
    answers["with AudioSet voices"] = (answers["full recipe"] + answers["AudioSet voices alone"]) / 2
    half = plain.shape[1] // 2
    for name, part in (("mean pooling alone", slice(0, half)), ("maximum pooling alone", slice(half, None))):
        answers[name] = probe(rows, [plain[:, part], copies["full recipe"][:, part]], plain[:, part])
    answers["attention pooling"] = attention.probe(
        rows,
        [e[:, : yamnet.EMBEDDING_SIZE] for e in yamnet.embeddings(backbone, waveforms)],
        families=splits.corpus_group(rows["source"]).to_numpy(),
        seed=SEED,
    )
    return compare(rows, answers, "variant")


def mix_clips(waveforms: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Mix every clip with another one (Zhang et al. 2018, mixup), at the length of the first and at the usual level.

    Returns
    -------
    list of ndarray, ndarray of int (n_clips,), ndarray (n_clips,)
        Mixtures, the partner's row, and the share of the clip itself, 0.5 to 1.
    """
    rng = np.random.default_rng(SEED)
    partners = rng.permutation(len(waveforms))
    shares = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, size=len(waveforms))
    shares = np.maximum(shares, 1 - shares)
    mixed = []
    for waveform, partner, share in zip(waveforms, partners, shares, strict=True):
        bed = augment.random_crop(waveforms[partner], len(waveform), rng)
        mixed.append(audio.equalise_level((share * waveform + (1 - share) * bed).astype(np.float32)))
    return mixed, partners, shares


def options() -> pd.DataFrame:
    """Compare the two options of notebook 02: each is applied to the clips trained on and answered for."""
    from lib import yamnet

    rows, waveforms = development_clips()
    backbone, answers = yamnet.from_hub().with_class_scores(), {}
    for name, settings in OPTIONS.items():
        build.say(f"{name}: {len(rows)} clips")
        change = partial(preprocess.process_waveform, options=preprocess.Options(**settings))
        changed = _in_processes(change, [(waveform,) for waveform in waveforms])
        pooled = frozen_features.of_clips(yamnet, backbone, changed)
        embedded, voices = yamnet.split_features(pooled)
        answers[name] = (probe(rows, [embedded], embedded) + probe(rows, [voices], voices, c=VOICES_C)) / 2
    return compare(rows, answers, "option")


def augment_variants() -> dict[str, augment.AugmentConfig]:
    """Return the settings of a changed copy, whole and without each of its pieces."""
    whole = replace(augment.WITHOUT_BACKGROUND, p_pitch_tempo=0.1, p_shift=0.5)
    pieces = [field.name for field in fields(whole) if field.name.startswith("p_") and getattr(whole, field.name) > 0]
    lacking = {f"without {name[2:].replace('_', ' ')}": replace(whole, **{name: 0.0}) for name in pieces}
    return {"full recipe": whole} | lacking


def _keyed(rows: pd.DataFrame, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, str]]:
    return [(waveform, f"{clip_id} 0") for clip_id, waveform in zip(rows["clip_id"], waveforms, strict=True)]


def _copy(waveform: np.ndarray, key: str, settings: augment.AugmentConfig) -> np.ndarray:
    return augment.augmented_copy(waveform, key=key, settings=settings)


def _in_processes(change: Callable[..., np.ndarray], arguments: Sequence[tuple]) -> list[np.ndarray]:
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(change, *zip(*arguments, strict=True), chunksize=16))


def pretraining() -> pd.DataFrame:
    """Compare what three objectives teach the compact Wav2Vec2 in the same number of steps, and no pretraining.

    The networks are frozen; a logistic regression reads the mean and maximum of their frames and answers for families
    that it never met. Pretraining hears all training groups, without labels: those families among them.
    """
    from lib import wav2vec2
    from lib.studies import pretraining as objectives

    rows, waveforms = development_clips()
    middles = [_middle(waveform) for waveform in waveforms]
    networks = {"none (initial weights)": _initial}
    sounds = [objectives.load_sound(split)[0] for split in ("train", "validation")]
    for method in objectives.METHODS:
        networks[f"{method}, {PROBE_STEPS} steps"] = partial(_pretrained, method, sounds)
    networks["models/wav2vec2_pretrained"] = lambda: wav2vec2.load_base("pretrained")[0].wav2vec2
    answers = {}
    for name, make in networks.items():
        build.say(name)
        features = wav2vec2.pooled(make(), middles)
        answers[name] = probe(rows, [features], features)
    return compare(rows, answers, "pretraining")


def _initial() -> object:
    from transformers import set_seed

    from lib import wav2vec2

    set_seed(SEED)  # the draw that every objective of `_pretrained` starts from
    return wav2vec2.initial_model().wav2vec2


def _pretrained(method: str, sounds: Sequence) -> object:
    from lib.studies import pretraining as objectives

    runs = objectives.pretrain(method, *sounds, n_steps=PROBE_STEPS, report_steps=PROBE_STEPS, seed=SEED)
    return list(runs)[-1][0]


def _middle(waveform: np.ndarray) -> np.ndarray:
    n_samples = round(PROBE_SECONDS * config.SAMPLE_RATE_HZ)
    start = max(0, (len(waveform) - n_samples) // 2)
    return waveform[start : start + n_samples]


STUDIES = {
    "left_out": left_out,
    "seeds": seeds,
    "ablation": ablation,
    "options": options,
    "pretraining": pretraining,
}


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the studies asked for, all by default, and write their tables."""
    parser = argparse.ArgumentParser(prog="./run_all.sh study", description=__doc__.splitlines()[0])
    known = ", ".join(name.replace("_", "-") for name in STUDIES)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {known} (default: all)")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    tables_dir = config.STUDIES_DIR / "tables"
    tables_dir.mkdir(parents=True, exist_ok=True)
    names = [name.replace("-", "_") for name in options.studies] or list(STUDIES)
    if not set(names) <= set(STUDIES):
        parser.error(f"the studies are {known}")
    for name in names:
        path = tables_dir / f"{name}.csv"
        STUDIES[name]().to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
        build.say(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
