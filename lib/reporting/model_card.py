"""Writes the model cards from a report's results and models/: ``python -m lib.reporting.model_card``.

Laid out as Hugging Face's card, with the sections of Mitchell et al. (2019, Model cards for model reporting). Every
number comes from metrics.json, run_info.json, trust.json, the report's tables, training.json or the rule; what a report
does not hold is left out with its heading.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib import config
from lib.reporting import card_facts, caveats
from lib.reporting.card_facts import NO_REPORT, Report

SPLITS = {
    "test_released": "test, these checkpoints (trained on train and validation groups)",
    "test": "test, their twins trained on the train groups alone",
    "validation": "validation (of the twins; chose the stages kept)",
    "test_random_split": "test of a random split (leaky, for comparison only)",
    "left_out": "families of sources left out of training (shorter runs)",
    "test_initial": "test, from initial weights (for comparison only)",
}
TITLES = {"yamnet": "YAMNet, fine-tuned", "wav2vec2": "Wav2Vec2, compact"}
NETWORKS = {
    "yamnet": (
        "MobileNet v1 over log-mel patches of 0.96 s (Google's YAMNet, Apache-2.0), fine-tuned to hear in noise what "
        "it heard without, and pooled over the clip; two linear heads, whose mean is the answer: one reads mean and "
        "maximum of the embedding, the other mean, maximum and log-mean-exp of YAMNet's own scores of 23 AudioSet "
        "classes. Keras file; loads in safe mode.",
        'from lib import yamnet\n\nmodel = yamnet.load("models/yamnet_finetuned")\nyamnet.predict(model, [waveform])',
    ),
    "wav2vec2": (
        "A compact Wav2Vec2 (layer-norm feature encoder, six transformer layers), mean and maximum of its frames, a "
        "head of three classes. safetensors; padding cannot be seen.",
        'from lib import wav2vec2\n\nmodel = wav2vec2.load("models/wav2vec2_compact")\n'
        "wav2vec2.predict(model, [waveform])",
    ),
}

FRONT_MATTER = """---
license: mit
language: en
pipeline_tag: audio-classification
tags: [audio, infant-cry, scream, sound-event]
---
"""
USES = """## Uses

**Intended.** Research and teaching: telling infant crying, human screaming and normal sound apart in clips of up to
15 s, and in the chunks of a stream.

**Not a safety device.** It misses cries and screams and raises false alarms. Do not use it as the only means of
watching over a child or an ill person, for medical or police decisions, or to listen to people who have not agreed.

**Out of scope.** Why an infant cries, who cries or screams, whether a scream is meant; a sound as the only evidence of
what happened.
"""
DATA = """## Training data

Public recordings of infant cries, screams, speech, household sound, animals, laughter and sirens; see docs/DATA_CARD.md
for sources, licences, known leaks and what "scream" means. Split 70/15/15 by group (infant, household, speaker or
source recording): no group lies in two splits. These checkpoints were trained on the train and validation groups, by
the recipe and up to the stage of their twins (train groups alone); no test group was ever trained on. Some sources
allow research use only; the audio is not part of this repository.
"""
FACTORS = """Source, noise, band edge, age and language are what figures may depend on. The first three are
measured; of age, only child against adult speech. No label states an infant's age or a language: nothing is known of
how figures differ by them.
"""
REBUILT = """- The base is **rebuilt YAMNet weights**: layers 7 to 14 were recovered from the 8-bit release, see
  lib/yamnet.py. No published figure of YAMNet holds for them.
"""
LIMITS = """## Limits

- The source of a recording gives its class away in part (band edge, level, codec). Test groups come from the same
  sources as the training groups: figures on other microphones and homes will be lower.
- Screams are few and short, and most of them acted.
- Labels come from the sources; nobody listened to every clip.
- Probabilities are not calibrated for how rare cries and screams are in daily life.
- Infants' ages, languages and homes are those of the sources.
"""
CARD_PATH = config.PROJECT_DIR / "docs" / "MODEL_CARD.md"
REPORT_DIR = config.PROJECT_DIR / "reports" / "full"  # the committed report, wherever a build writes


def network_card(name: str, record: Mapping, metrics: Mapping, *, report: Report = NO_REPORT) -> str:
    """Return the card of one network.

    Parameters
    ----------
    name : str
        "yamnet" or "wav2vec2".
    record : mapping
        Its training.json.
    metrics : mapping
        metrics.json of the report.
    report : Report
        What `lib.reporting.card_facts.read_report` found.
    """
    what, code = NETWORKS[name]
    parts = (
        f"{FRONT_MATTER}\n# {TITLES[name]}\n\n{what}\n\nClasses, in this order: {', '.join(config.CLASS_NAMES)}.\n",
        f"## How to use\n\n```python\n{code}  # (1, 3)\n```\n",
        USES,
        DATA + card_facts.splits(report),
        f"## Training\n\n{_training(record)}\n",
        f"## Evaluation\n\n{_scores({name: metrics[name]})}\n",
        card_facts.section("Factors", FACTORS + card_facts.robustness(report, name)),
        card_facts.section("Calibration", card_facts.calibration(report, name)),
        card_facts.section("Energy", card_facts.energy(report)),
        _limits([record]),
    )
    return "\n".join(filter(None, parts))


def pretrained_card(record: Mapping) -> str:
    """Return the card of the compact Wav2Vec2 before it met any label.

    Parameters
    ----------
    record : mapping
        training.json as `lib.studies.pretraining` writes it.
    """
    distilled, start = record["method"] == "distillation", record.get("start")
    facts = {
        "objective": record["method"],
        **({"teacher": record["teacher"]} if distilled else {}),
        "audio": f"{record['n_clips']:,} clips of the training groups ({record['data_tier']}), without labels"
        + (f", and {record['n_versions']} changed versions of each" if record.get("n_versions") else ""),
        "batches": f"{record['n_steps']:,} of {record['batch_size']} crops of 2.9 s"
        + (
            f", after {start['n_steps']:,} of an earlier run ({start['method']}, seed {start['seed']})" if start else ""
        ),
        **({"weights": f"{record['share']:.0%} of the way from the earlier run's to this one's last"} if start else {}),
        "seed": record["seed"],
        "last loss, training": f"{record['loss']:.3f}" + (" (1: knows nothing)" if distilled else ""),
        "last loss, validation": f"{record['validation_loss']:.3f}",
        "time": f"{record['seconds'] / 60:.0f} minutes",
    }
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    what = (
        "A compact Wav2Vec2 without head: what notebook 04 starts from where `facebook/wav2vec2-base` is too slow. "
        "Half precision, safetensors. Useless by itself: fine-tune it."
    )
    if distilled:
        what += (
            "\n\nDistillation: it hears a clip changed by noise, backgrounds, band edges and codecs, and predicts "
            "every 0.48 s what YAMNet makes of the clean sound: its embedding, and its scores of AudioSet classes."
        )
    code = 'from lib import wav2vec2\n\nmodel, description = wav2vec2.load_base("pretrained")'
    blind = "- A student shares its teacher's blind spots.\n" if distilled else ""
    parts = (
        f"{FRONT_MATTER}\n# Wav2Vec2, compact, pretrained\n\n{what}\n",
        f"## How to use\n\n```python\n{code}\n```\n",
        f"## Training\n\n{lines}\n\n`python -m lib.studies.pretraining` makes such a network from initial weights, `--start` "
        "goes on from an earlier one; loss.csv is the learning curve.\n",
        f"## Limits\n\n{blind}- It has heard the training groups of the split by group, and so some clips of the "
        "random split's test, unlabelled.\n",
    )
    return "\n".join(parts)


def ensemble_card(
    rule: Mapping,
    records: Mapping[str, Mapping],
    metrics: Mapping,
    *,
    report: Report = NO_REPORT,
    measured: Sequence[str] = (),
) -> str:
    """Return docs/MODEL_CARD.md: the ensemble, what it is made of, every model's scores, and limits as `measured`."""
    trained = "\n\n".join(f"**{TITLES[name]}**\n\n{_training(record)}" for name, record in records.items())
    parts = (
        f"{FRONT_MATTER}\n# Cry and scream detector\n\nTwo networks, one answer: {TITLES['yamnet']} and "
        f"{TITLES['wav2vec2']}, combined by the rule `{rule['rule']}`, which notebook 05 chose without the test groups."
        "\n\n"
        f"Classes, in this order: {', '.join(config.CLASS_NAMES)}.\n",
        '## How to use\n\n```python\nfrom lib.inference import run_inference\n\nrun_inference("clip.wav")\n```\n',
        USES,
        DATA + card_facts.splits(report),
        f"## Training\n\n{trained}\n",
        f"## Evaluation\n\n{_scores(metrics)}\n",
        card_facts.section(
            "Factors",
            FACTORS + card_facts.robustness(report, rule["rule"]) + card_facts.by_source_and_kind(report, rule["rule"]),
        ),
        card_facts.section("Sources never met", card_facts.read_out(report, "cross_corpus")),
        card_facts.section("Spread over seeds", card_facts.read_out(report, "spread")),
        card_facts.section("Thresholds", card_facts.thresholds(report, rule)),
        card_facts.section("Calibration", card_facts.calibration(report, card_facts.ENSEMBLE)),
        card_facts.section("Energy", card_facts.energy(report)),
        _limits(list(records.values())) + "".join(f"- {sentence}\n" for sentence in measured),
        "This page is written by `python -m lib.reporting.model_card`; do not edit it by hand.\n",
    )
    return "\n".join(filter(None, parts))


def write_cards(models_dir: Path, report_dir: Path, *, card_path: Path = CARD_PATH) -> list[Path]:
    """Write the README of both released networks and docs/MODEL_CARD.md; return their paths.

    Raises
    ------
    FileNotFoundError
        If a training.json, the rule or metrics.json is missing.
    """
    metrics = json.loads((report_dir / "metrics.json").read_text(encoding="utf-8"))
    rule = json.loads((models_dir / config.RULE_FILE).read_text(encoding="utf-8"))
    paths = {name: models_dir / folder for name, folder in config.RELEASED_DIRS.items()}
    records = {name: json.loads((path / "training.json").read_text(encoding="utf-8")) for name, path in paths.items()}
    report = card_facts.read_report(report_dir)
    texts = {
        path / "README.md": network_card(name, records[name], metrics, report=report) for name, path in paths.items()
    }
    measured = caveats.read(report_dir)
    texts[card_path] = ensemble_card(rule, records, metrics, report=report, measured=measured)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


def _training(record: Mapping) -> str:
    rows = {"base weights": record.get("base_weights", "unknown"), "audio": record.get("data_tier", "unknown")}
    rows |= {"stage kept": record["stage"]} if "stage" in record else {}
    rows |= record.get("parameters", {})
    return "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in rows.items())


def _scores(metrics: Mapping) -> str:
    """Return a table of macro F1 and F1 by class with 95 % intervals, one row a model and split."""
    head = ("model", "split", "clips", "groups", "macro F1", *(f"F1 {label}" for label in config.CLASS_NAMES))
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for model, splits in metrics.items():
        for split, title in SPLITS.items():
            if split in splits:
                lines.append(_row(model, title, splits[split]))
    lines.append("\n95 % intervals in brackets, bootstrapped over groups.")
    return "\n".join(lines)


def _row(model: str, title: str, result: Mapping) -> str:
    figures = [result["macro_f1"], *(result["per_class"][label]["f1"] for label in config.CLASS_NAMES)]
    cells = [model, title, f"{result['n_clips']:,}", f"{result['n_groups']:,}", *map(card_facts.with_interval, figures)]
    return f"| {' | '.join(cells)} |"


def _limits(records: Sequence[Mapping]) -> str:
    is_rebuilt = any("rebuilt" in record.get("base_weights", "") for record in records)
    return LIMITS + (REBUILT if is_rebuilt else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the cards of the released checkpoints from a report."""
    parser = argparse.ArgumentParser(prog="python -m lib.reporting.model_card", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="full", help="report to quote (default: full)")
    profile = parser.parse_args(arguments).profile
    for path in write_cards(config.MODELS_DIR, REPORT_DIR.parent / profile):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
