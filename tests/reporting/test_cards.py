"""Cards: every number comes from a table, and what is not there leaves its part out."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from lib import config, manifest
from lib.reporting import card_facts, data_card, model_card
from lib.reporting.steps import BuildError

FIGURE = {"value": 0.87654, "low": 0.8, "high": 0.9}
SCORES = {
    "n_clips": 1234, "n_groups": 56, "accuracy": FIGURE, "macro_f1": FIGURE,
    "per_class": {label: {"precision": FIGURE, "recall": FIGURE, "f1": FIGURE} for label in config.CLASS_NAMES},
}  # fmt: skip
RECORD = {"base_weights": "rebuilt YAMNet weights", "data_tier": "mirror", "parameters": {"seed": 7}}


def recordings():
    """Return an index of 8 recordings: label, source, group, sample rate, licence."""
    rows = [
        ("crying", "phones", "p:1", 8000), ("crying", "phones", "p:1", 8000), ("crying", "phones", "p:2", 16000),
        ("screaming", "deeply", "d:1", 44100), ("screaming", "nevado", "n:1", 44100),
        ("normal", "nevado", "n:2", 48000), ("normal", "esc10", "e:1", 44100), ("normal", "esc10", "e:2", 22050),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["label", "source", "group_id", "sample_rate_hz"])
    names = [f"clip-{i}" for i in range(len(table))]
    table = table.assign(clip_id=names, bandwidth_hz=3500.0, duration_seconds=6.0, licence="CC0", subtype="kind")
    table["path"] = [
        "dataset/screaming/AB12_15_3_0_17_0_0_0.wav" if source == "deeply" else f"{source}/a.wav"
        for source in table["source"]
    ]
    return table


@pytest.fixture
def facts():
    """Return facts of a build that could not decode one recording and cut another into two clips."""
    listed = recordings()
    clips = listed.drop(index=7).reset_index(drop=True).assign(recording_id=lambda t: t["clip_id"])
    clips = pd.concat([clips, clips.iloc[[6]].assign(clip_id="clip-6-01")], ignore_index=True)
    clips = clips.assign(
        split="train", start_seconds=0.0, sha256="ab" * 32, level_db_before=[-55.0] * 3 + [-25.0] * 5,
        level_db_after=-26.0,
    )  # fmt: skip
    attrition = listed[["clip_id", "source", "label"]].assign(outcome="kept", n_segments=1, n_clips=1)
    attrition.loc[7, ["outcome", "n_segments", "n_clips"]] = ["not decodable", 0, 0]
    attrition.loc[6, ["n_segments", "n_clips"]] = [3, 2]
    checks = pd.DataFrame(
        {"": ["by group", "at random"], "groups shared between splits": [0, 2], "clips in a shared group": [0, 0.25]}
    )
    sources = pd.DataFrame({"source": ["phones"], "citation": ["Someone (2020)"]})
    return data_card.Facts(sources, listed, clips, attrition, checks)


def test_a_histogram_counts_by_class_and_a_value_on_an_edge_falls_below_it(facts):
    table = data_card.histogram(facts.listed, "sample_rate_hz", edges=(8000, 16000, 44100))
    assert table.index.tolist() == ["to 8,000", "8,000 to 16,000", "16,000 to 44,100", "above 44,100"]
    assert table["crying"].tolist() == [2, 1, 0, 0]
    assert table["normal"].tolist() == [0, 0, 2, 1]
    assert list(table.columns) == list(config.CLASS_NAMES) and table.to_numpy().sum() == len(facts.listed)
    lone = data_card.histogram(facts.listed[:1], "sample_rate_hz", edges=(1.0,))
    assert lone["normal"].tolist() == [0, 0]


def test_the_histograms_carry_counts_shares_and_groups(facts):
    text = data_card.histograms(facts)
    assert "| to 8,000 | 2 (67%) | 0 (0%) | 0 (0%) |" in text
    assert "| all | 3 (2 groups) | 2 (2 groups) | 3 (3 groups) |" in text
    assert "| -60 to -50 | 3 (100%) | 0 (0%) | 0 (0%) |" in text
    assert text.count("| all |") == len(data_card.HISTOGRAMS)


def test_attrition_goes_from_listed_to_clips_and_names_what_was_lost(facts):
    text = data_card.attrition_table(facts)
    assert "| all | 8 | 8 | 7 | 7 | 9 | 8 |" in text
    assert "| esc10 | 2 | 2 | 1 | 1 | 3 | 2 |" in text
    assert "not used as they are: 1 not decodable." in text


def test_a_recording_that_was_not_fetched_shows(facts):
    fewer = data_card.Facts(facts.sources, facts.listed, facts.clips, facts.attrition[1:], facts.checks)
    assert "| crying | 3 | 2 | 2 | 2 | 2 | 2 |" in data_card.attrition_table(fewer)


def test_screams_are_told_by_origin_with_the_ages_known(facts):
    text = data_card.screams_table(facts)
    assert "| voices of a game | nevado | 1 | 1 | 50% |" in text
    assert "1 of them (deeply): 17 to 17 years, 1 under 18." in text


def test_leaks_are_those_counted_by_hand(facts):
    """Phones and deeply give their class away, nevado's one scream counts more than its share of normal."""
    text = data_card.leaks_list(facts)
    assert "3 of 4 sources hold one class alone" in text
    assert "2 of the 3 crying recordings, 0 of the 2 screaming recordings" in text
    assert "2 groups lie in more than one of its splits, with 25% of the clips" in text
    assert "balanced accuracy of 89%" in text  # crying 1, screaming 1, normal 2 of 3


def test_licences_and_sources_count_clips_and_groups_by_class(facts):
    assert "| CC0 | 3 / 2 | 2 / 2 | 3 / 2 |" in data_card.licences_table(facts)
    assert "| esc10 |  |  | 2 / 1 |" in data_card.holdings_table(facts)


def test_the_instance_is_a_row_of_the_manifest_and_every_field_is_described(facts):
    row = json.loads(re.search(r"\{.*\}", data_card.instance(facts), flags=re.DOTALL).group())
    assert tuple(row) == manifest.COLUMNS == tuple(data_card.FIELDS)
    assert row["label"] == "screaming" and row["path"] == "processed/ab/clip-3.wav"


def test_without_a_report_the_index_alone_is_told(tmp_path):
    text = data_card.card_text(data_card.CARD_PATH.read_text(encoding="utf-8"), report_dir=tmp_path)
    assert text.count(data_card.NOT_BUILT) == len(data_card.PARTS) - len(data_card.FROM_INDEX)
    assert "| crying | 605 |" in text
    with pytest.raises(BuildError, match="exactly once"):
        data_card.card_text("no marks", report_dir=tmp_path)


def test_a_report_on_generated_audio_gives_the_data_card_nothing(tmp_path):
    (tmp_path / "run_info.json").write_text(json.dumps({"data": {"tier": "synthetic"}}))
    assert data_card.read(tmp_path).clips is None


def test_the_committed_data_card_has_the_headings_of_hugging_face():
    text = data_card.CARD_PATH.read_text(encoding="utf-8")
    for heading in (
        "Dataset description", "Data instances", "Data fields", "Data splits", "Curation rationale", "Source data",
        "Annotations", "Personal and sensitive information", "Social impact", "Discussion of biases",
        "Other known limitations", "Licensing information", "Citation information",
    ):  # fmt: skip
        assert re.search(f"^##+ {heading}$", text, flags=re.MULTILINE), heading


@pytest.fixture
def report():
    """Return a report that holds everything a model card quotes."""
    splits = [(label, split, 10, 4) for label in config.CLASS_NAMES for split in manifest.SPLITS]
    named = {f"{name}{end}": 0.125 for name in ("coverage", "risk") for end in ("", "_low", "_high")}
    rates = {f"{name}{end}": 0.375 for name in ("miss_rate", "false_alarm_rate") for end in ("", "_low", "_high")}
    sides = {"n_wanted": 21, "n_groups_wanted": 11, "n_normal": 22, "n_groups_normal": 12}
    here = {"split": "test", "model": "ensemble"}
    size = {"n_clips": 33, "n_groups": 13}
    figure = {"value": 0.1111, "low": 0.0555, "high": 0.2222}
    tables = {
        "02_splits": pd.DataFrame(splits, columns=["class", "split", "clips", "groups"]),
        "06_by_source": pd.DataFrame([{"source": "normal / emodb", **figure, "low": np.nan, "high": np.nan, **size}]),
        "06_by_kind": pd.DataFrame([{"kind": "normal / speech_child", **figure, **size}]),
        "06_robustness": pd.DataFrame(
            [{"condition": "below 4 kHz", "model": "average", "macro F1": "0.956", "change": "-0.012"}]
        ),
        "trust_calibration_measures": pd.DataFrame(
            [{**here, "state": "before", "temperature": 1.0, "measure": "brier", **figure, **size}]
        ),
        "trust_calibration_unsure": pd.DataFrame([{**here, "target_risk": 0.02, "threshold": 0.61, **named, **size}]),
        "trust_calibration_costs": pd.DataFrame(
            [{**here, "alarm": "crying", "miss_costs": 10, "threshold": 0.42, **rates, **sides}]
        ),
    }
    info = {
        "steps": {"03_yamnet": {"seconds": 90.0, "energy_kwh": 0.0123}},
        "energy": {"kwh": 0.0123, "method": "CodeCarbon", "not_measured_because": ""},
        "seconds": 90.0,
        "machine": {"gpu": "none", "n_cores": 2},
    }
    return card_facts.Report(info, {"spread": {"read_out": ["The seeds differ by 0.017."]}}, tables)


def ensemble_card(report):
    rule = {"rule": "average", "unsure_below": 0.6184}
    return model_card.ensemble_card(rule, {"yamnet": RECORD}, {"average": {"test": SCORES}}, report=report)


def test_the_model_card_quotes_every_table(report):
    card = ensemble_card(report)
    for text in (
        "| crying | 10 / 4 | 10 / 4 | 10 / 4 |",
        "| normal / emodb | 0.111 | 33 | 13 |",
        "| normal / speech_child | 0.111 [0.056, 0.222] | 33 | 13 |",
        "| below 4 kHz | 0.956 | -0.012 |",
        "a probability of 0.62",
        "| 2% | 0.61 | 0.125 [0.125, 0.125] |",
        "| crying | 10 | 0.42 | 0.375 [0.375, 0.375] | 21 / 11 | 0.375 [0.375, 0.375] | 22 / 12 |",
        "| Brier score | before | 1.00 | 0.111 [0.056, 0.222] | 33 | 13 |",
        "- The seeds differ by 0.017.",
        "| 03_yamnet | 1.5 | 0.0123 |",
        "2 cores, no GPU",
        "0.877 [0.800, 0.900]",
        "Not a safety device",
        "rebuilt YAMNet weights",
    ):
        assert text in card, text


def headings(card):
    return re.findall(r"^## (.*)$", card, flags=re.MULTILINE)


def test_what_the_report_does_not_hold_is_left_out_with_its_heading(report):
    assert {"Spread over seeds", "Calibration", "Energy", "Thresholds"} <= set(headings(ensemble_card(report)))
    bare = headings(ensemble_card(card_facts.NO_REPORT))
    assert not {"Spread over seeds", "Sources never met", "Calibration", "Energy"} & set(bare)
    assert {"Uses", "Training data", "Factors", "Evaluation", "Limits", "Thresholds"} <= set(bare)
    other = model_card.network_card("wav2vec2", RECORD | {"base_weights": "compact"}, {"wav2vec2": {"test": SCORES}})
    assert "Thresholds" not in headings(other) and "rebuilt" not in other


def test_energy_that_was_not_measured_is_called_so(report):
    info = dict(report.info) | {"energy": {"kwh": None, "method": "", "not_measured_because": "no meter"}}
    info["steps"] = {"03_yamnet": {"seconds": 90.0, "energy_kwh": None}}
    text = card_facts.energy(card_facts.Report(info))
    assert "| 03_yamnet | 1.5 | not measured |" in text and "Not measured: no meter" in text


def test_the_cards_of_a_release_are_written_from_files(tmp_path):
    models, report_dir = tmp_path / "models", tmp_path / "report"
    for folder in config.RELEASED_DIRS.values():
        (models / folder).mkdir(parents=True)
        (models / folder / "training.json").write_text(json.dumps(RECORD))
    (models / "ensemble.json").write_text(json.dumps({"rule": "average"}))
    report_dir.mkdir()
    metrics = {name: {"test": SCORES} for name in ("yamnet", "wav2vec2", "average")}
    (report_dir / "metrics.json").write_text(json.dumps(metrics))
    (report_dir / "trust.json").write_text(json.dumps({"cross_corpus": {"read_out": ["Recall is 0.88."]}}))
    written = model_card.write_cards(models, report_dir, card_path=tmp_path / "docs" / "MODEL_CARD.md")
    assert [path.name for path in written] == ["README.md", "README.md", "MODEL_CARD.md"]
    assert "## Sources never met\n\n- Recall is 0.88." in written[-1].read_text(encoding="utf-8")
    assert "1,234" in written[0].read_text(encoding="utf-8")
