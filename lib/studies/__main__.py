"""Computes what notebook 06 says about trust: `./run_all.sh trust [SECTION ...]`.

Needs a finished build (notebooks 01 to 05) on real recordings and, for two sections, the tables of
`./run_all.sh study left-out seeds`. Takes about an hour on two cores. Writes `reports/<profile>/trust.json`, keyed by
section, and `reports/<profile>/tables/trust_*.csv`; a section computed alone leaves the others as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lib import augment, config, ensemble, manifest, noise
from lib.reporting import build, environment
from lib.studies import (
    calibration,
    cross_corpus,
    detection,
    esc10,
    hard_negatives,
    recipes,
    robustness,
    shortcuts,
    soundscapes,
    spread,
    stream,
)
from lib.studies.findings import Findings
from lib.studies.inputs import SCHEME, Inputs

SEED = 7
N_COPIES = 1  # changed copies of each clip in the recipe that augments before the split
N_TUNING_SOUNDSCAPES = 20  # of validation groups, 3.3 h
CONTEXTS = (0, 3)  # patches on either side of the two that overlap a frame
MAX_FALSE_ALARMS_PER_HOUR = 2.0  # of each label, while the thresholds are tuned
FILE_NAME = "trust.json"


def their_way(inputs: Inputs) -> Findings:
    """Rebuild the usual recipes and their honest twins."""
    from lib import yamnet  # here, as below: TensorFlow takes seconds to import

    rows, waveforms = inputs.rows(*manifest.SPLITS), inputs.waveforms(*manifest.SPLITS)
    backbone = yamnet.load_base().backbone
    by_id = dict(zip(rows["clip_id"], waveforms, strict=True))
    copies = augment.augmented_copies(by_id, n_changed=N_COPIES, n_noisy=0)
    patches, *others = [yamnet.embeddings(backbone, list(version.values())) for version in (by_id, *copies)]
    networks = {
        name: _answer_table(inputs, {"validation": inputs.validation_answers, "test": inputs.test_answers}, name)
        for name in ensemble.MODEL_NAMES
    }
    return recipes.findings(rows, patches, copies=others, networks=networks, seed=SEED)


def _answer_table(inputs: Inputs, answers: dict[str, dict[str, np.ndarray]], name: str) -> pd.DataFrame:
    columns = ["clip_id", "group_id", "source", "label", "split"]
    tables = [
        inputs.rows(split)[columns]
        .assign(scheme=SCHEME)
        .assign(**dict(zip(config.CLASS_NAMES, values[name].T, strict=True)))
        for split, values in answers.items()
    ]
    return pd.concat(tables, ignore_index=True)


def shortcut_audit(inputs: Inputs) -> Findings:
    """Score classifiers that see no content, and networks without the cue."""
    rows, waveforms = inputs.rows(*manifest.SPLITS), inputs.waveforms(*manifest.SPLITS)
    raw = pd.read_csv(config.RAW_MANIFEST_PATH)
    measured = (
        shortcuts.measure_recordings(rows, raw),
        shortcuts.measure_all(waveforms),
        shortcuts.measure_crops(rows, waveforms, seed=SEED),
    )
    conditions = shortcuts.destroy(inputs.waveforms("test"))
    answers = {condition: inputs.answer(changed) for condition, changed in conditions.items()}
    stages = dict(zip(shortcuts.STAGES, measured, strict=True))
    return shortcuts.findings(rows, stages, test_rows=inputs.rows("test"), answers=answers, seed=SEED)


def cross_corpus_matrix(inputs: Inputs) -> Findings:
    """Score each source by networks that never met it."""
    rows, answers = inputs.left_out
    columns = ["clip_id", "group_id", "source", "label", "split", "scheme"]
    tables = [
        rows[columns].assign(model=name, **dict(zip(config.CLASS_NAMES, values.T, strict=True)))
        for name, values in answers.items()
    ]
    return cross_corpus.findings(pd.concat(tables, ignore_index=True), chosen="ensemble", seed=SEED)


def hard_negative_kinds(inputs: Inputs) -> Findings:
    """Count false positives on the sounds that are taken for cries and screams."""
    rows, answers = inputs.left_out
    recordings = pd.read_csv(config.RAW_MANIFEST_PATH)
    return hard_negatives.section(
        inputs.rows("test"), inputs.test_answers, rows, answers, recordings=recordings, seed=SEED
    )


def calibrated(inputs: Inputs) -> Findings:
    """Ask whether 0.9 means nine in ten, when to say unsure, and where to put thresholds by cost."""
    given = {
        "validation": (inputs.rows("validation"), inputs.validation_answers),
        "test": (inputs.rows("test"), inputs.test_answers),
        "left_out": inputs.left_out,
    }
    return calibration.section(given, seed=SEED)


def long_recordings(inputs: Inputs) -> Findings:
    """Build ten hours of soundscapes and let YAMNet hear them.

    How many patches around a frame are pooled, whether each is brought to one level first, and all thresholds are
    chosen on soundscapes of validation groups.
    """

    def scored(split: str, n_soundscapes: int, scorer: stream.Scorer) -> list[stream.ScoredSoundscape]:
        rows = inputs.rows(split)
        is_music = hard_negatives.kind(rows, pd.read_csv(config.RAW_MANIFEST_PATH)) == "music"
        rows = rows.assign(subtype=rows["subtype"].mask(is_music, "music"))
        made = soundscapes.soundscapes(
            rows, inputs.waveforms(split), split=split, n_soundscapes=n_soundscapes, seed=SEED
        )
        return stream.score_soundscapes(made, scorer)

    def tuned(name: str, scorer: stream.Scorer) -> tuple[float, stream.DetectionSettings, pd.DataFrame]:
        heard = scored("validation", N_TUNING_SOUNDSCAPES, scorer)
        settings, tries = detection.tune(heard, max_false_alarms_per_hour=MAX_FALSE_ALARMS_PER_HOUR)
        found = [settings.events(scape.probabilities) for scape in heard]
        event_f1 = float(detection.event_f1(detection.event_counts(heard, found).sum(axis=0)).mean())
        build.say(f"{name}: event F1 {event_f1:.3f} on {len(heard)} soundscapes of validation groups")
        return event_f1, settings, tries

    scorers = {f"{2 * scorer.context + 2} patches": scorer for scorer in _scorers(inputs)}
    scorers |= {f"{name} at one level": stream.at_one_level(scorer) for name, scorer in scorers.items()}
    tried = {name: tuned(name, scorer) for name, scorer in scorers.items()}
    chosen = max(tried, key=lambda name: tried[name][0])
    _, settings, tries = tried[chosen]
    tested = scored("test", soundscapes.N_SOUNDSCAPES, scorers[chosen])
    found = detection.findings(tested, settings, tries=tries, seed=SEED)
    how = {"scorer": chosen, "look_ahead_seconds": scorers[chosen].look_ahead_seconds}
    how |= {"validation_event_f1_by_scorer": {name: value[0] for name, value in tried.items()}}
    return Findings({**found.figures, **how}, found.tables)


def _scorers(inputs: Inputs) -> list[stream.Scorer]:
    """Return YAMNet as scorers that pool fewer or more patches around a frame."""
    from lib import yamnet

    classifier = yamnet.load(inputs.models_dir / "yamnet" / SCHEME)
    backbone, head = classifier.get_layer("yamnet"), classifier.get_layer("head")

    def hear(windows: np.ndarray) -> np.ndarray:
        blocks = np.array_split(windows, -(-len(windows) // yamnet.MAX_PATCHES_PER_BATCH))
        return np.concatenate([backbone.predict_on_batch(block) for block in blocks])

    def answer(around: list[np.ndarray]) -> np.ndarray:
        return head.predict_on_batch(yamnet.pool(around))

    return [stream.Scorer(hear, answer, context) for context in CONTEXTS]


def robust(inputs: Inputs) -> Findings:
    """Score both networks in noise, rooms, codecs, telephone, level and clipping."""
    training = inputs.rows("train")
    is_speech = training["subtype"].str.startswith("speech").to_numpy()
    voices = [w for w, speech in zip(inputs.waveforms("train"), is_speech, strict=True) if speech]
    found = robustness.answers(
        inputs.rows("test"),
        inputs.waveforms("test"),
        inputs.answer,
        given=noise.conditions(voices),
        say=build.say,
    )
    return robustness.section(inputs.rows("test"), found, seed=SEED)


def seed_spread(inputs: Inputs) -> Findings:
    """Compare three trainings that differ in their seed alone."""
    table = pd.read_csv(config.STUDIES_DIR / "tables" / "seeds.csv")
    rows = inputs.rows("test")
    by_model: dict[str, dict[int, np.ndarray]] = {name: {} for name in ensemble.MODEL_NAMES}
    for (name, seed), part in table[table["model"].isin(by_model)].groupby(["model", "seed"]):
        by_model[name][seed] = part.set_index("clip_id").loc[rows["clip_id"], list(config.CLASS_NAMES)].to_numpy()
    by_model["ensemble"] = {
        seed: inputs.combine({name: by_model[name][seed] for name in ensemble.MODEL_NAMES})["ensemble"]
        for seed in by_model["yamnet"]
    }
    truth = spread.Truth(manifest.class_ids(rows), rows["group_id"].to_numpy(), seed=SEED)
    return spread.findings(by_model, truth)


def transfer_learning(inputs: Inputs) -> Findings:
    """Tell ten kinds of sound apart from frozen embeddings, over their own folds."""
    from lib import yamnet
    from lib.reporting.energy import EnergyMeter

    rows = inputs.rows(*manifest.SPLITS)
    recordings = pd.read_csv(config.RAW_MANIFEST_PATH)
    backbone, meter = yamnet.load_base().backbone, EnergyMeter()
    meter.start("embeddings")
    embeddings = yamnet.embeddings(backbone, inputs.waveforms(*manifest.SPLITS))
    embedding_kwh = meter.stop("embeddings")
    means = np.stack([patches.mean(axis=0) for patches in embeddings])
    return esc10.section(rows, means, recordings=recordings, meter=meter, embedding_kwh=embedding_kwh, seed=SEED)


# Of the networks, those that a section hears: all but where it is said here.
HEARD = {"long_recordings": ("yamnet",), "transfer_learning": ()}
SECTIONS: dict[str, Callable[[Inputs], Findings]] = {
    "their_way_our_way": their_way,
    "shortcut_audit": shortcut_audit,
    "cross_corpus": cross_corpus_matrix,
    "hard_negatives": hard_negative_kinds,
    "calibration": calibrated,
    "long_recordings": long_recordings,
    "robustness": robust,
    "spread": seed_spread,
    "transfer_learning": transfer_learning,
}


def write(name: str, findings: Findings, report_dir: Path, *, versions: dict[str, str]) -> None:
    """Put a section's figures into trust.json, beside those of the other sections, and write its tables.

    `versions` are those of the networks; of those that it heard they stand in the section, for sections may be
    computed one by one.
    """
    (report_dir / "tables").mkdir(parents=True, exist_ok=True)
    for table_name, table in findings.tables.items():
        path = report_dir / "tables" / f"trust_{table_name}.csv"
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    path = report_dir / FILE_NAME
    everything = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    heard = {network: versions[network] for network in HEARD.get(name, versions)}
    everything[name] = _without_nan({**findings.figures, "networks": heard})
    ordered = {key: everything[key] for key in SECTIONS if key in everything}
    path.write_text(json.dumps(ordered, indent=2, default=_plain, allow_nan=False) + "\n", encoding="utf-8")


def _without_nan(value: object) -> object:
    """Turn NaN (no value: nothing to divide by) into None, for JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _plain(value: object) -> object:
    """Turn NumPy's numbers and arrays into JSON's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not belong into trust.json: {value!r}")


def main(arguments: Iterable[str] | None = None) -> int:
    """Compute the sections asked for, all by default."""
    parser = argparse.ArgumentParser(prog="./run_all.sh trust", description=__doc__.splitlines()[0])
    known = ", ".join(name.replace("_", "-") for name in SECTIONS)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {known} (default: all)")
    parser.add_argument("--profile", default="full", help="build to judge (default: full)")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    names = [name.replace("-", "_") for name in options.sections] or list(SECTIONS)
    if not set(names) <= set(SECTIONS):
        parser.error(f"the sections are {known}")
    inputs = Inputs(options.profile)
    versions = inputs.versions  # now: a network that is missing must not be found out when a section has run
    build.say(str(environment.tier_banner()))
    for name in names:
        build.say(f"{name} ...")
        write(name, SECTIONS[name](inputs), config.report_dir(options.profile), versions=versions)
    build.say(f"written: {config.report_dir(options.profile) / FILE_NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
