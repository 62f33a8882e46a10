"""Cards and README's table: one golden file for each template; every number comes from a table or file."""

from __future__ import annotations

import re
from pathlib import Path

import golden
import pandas as pd
import pytest

from lib import config, manifest
from lib.reporting import cards, data_card, results
from lib.reporting.steps import BuildError
from lib.studies import benchmark
from tests.reporting import reports

GOLDEN_DIR = Path(__file__).parent / "golden"
PRETRAINED = {
    "method": "distillation", "teacher": "YAMNet", "n_clips": 1505, "data_tier": "mirror", "n_steps": 4000,
    "batch_size": 16, "seed": 7, "loss": 0.41, "validation_loss": 0.43, "seconds": 5400.0, "n_versions": 2,
    "start": {"n_steps": 8000, "method": "distillation", "seed": 6}, "share": 0.7,
}  # fmt: skip


def recordings():
    """Return an index of 8 recordings: label, source, group, sample rate, licence."""
    rows = [
        ("crying", "phones", "p:1", 8000), ("crying", "phones", "p:1", 8000), ("crying", "phones", "p:2", 16000),
        ("screaming", "deeply", "d:1", 44100), ("screaming", "nevado", "n:1", 44100),
        ("normal", "nevado", "n:2", 48000), ("normal", "esc10", "e:1", 44100), ("normal", "esc10", "e:2", 22050),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["label", "source", "group_id", "sample_rate_hz"])
    names = [f"clip-{i}" for i in range(len(table))]
    return table.assign(clip_id=names, bandwidth_hz=3500.0, duration_seconds=6.0, licence="CC0", subtype="kind")


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
    sources = pd.DataFrame({
        "source": ["phones", "deeply", "nevado"], "corpus_group": ["phones", "deeply", "space_station"],
        "citation": ["Someone (2020)"] * 3, "title": "T", "repository": "o/r", "commit": "0123456789abcdef",
        "label_rule": "a | b", "group_rule": "speaker", "licence": "CC0",
    })  # fmt: skip
    return data_card.Facts(sources, listed, clips, attrition, checks)


def test_the_data_card_with_a_report_and_of_the_index_alone(facts, tmp_path):
    golden.check(GOLDEN_DIR / "DATA_CARD.md", data_card.card(facts))
    golden.check(GOLDEN_DIR / "DATA_CARD_index.md", data_card.card(data_card.Facts(facts.sources, facts.listed)))
    assert data_card.read(results.Results(tmp_path, info={"data": {"tier": "synthetic"}})).clips.empty
    card = (GOLDEN_DIR / "DATA_CARD_index.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)` \|", card, flags=re.MULTILINE)) == manifest.COLUMNS


def test_the_model_card_and_the_networks_cards(tmp_path, monkeypatch):
    report = reports.write(tmp_path / "report")
    monkeypatch.setattr(config, "MODELS_DIR", reports.write_models(tmp_path / "models"))
    monkeypatch.setattr(cards, "DOCS_DIR", tmp_path / "docs")
    written = cards.write_model_cards(report)
    texts = {path.parent.name: path.read_text(encoding="utf-8") for path in written}
    assert set(texts) == {*config.RELEASED_DIRS.values(), "detector", "docs"}
    golden.check(GOLDEN_DIR / "DETECTOR.md", texts["detector"])
    golden.check(GOLDEN_DIR / "MODEL_CARD.md", texts["docs"])
    golden.check(GOLDEN_DIR / "NETWORK.md", texts["yamnet"])
    golden.check(GOLDEN_DIR / "PRETRAINED.md", cards.pretrained_card(PRETRAINED))
    assert cards.write_model_cards(report) == []
    bare = cards.model_card(results.Results(tmp_path, metrics=reports.METRICS))
    headings = re.findall(r"^## (.*)$", bare, flags=re.MULTILINE)  # others are left out
    assert headings == ["How to use", "Uses", "Training data", "Training", "Evaluation", "Limits"]


@pytest.mark.parametrize("product", [True, False], ids=["product", "clips"])
def test_readmes_table_shows_the_products_figures_first(tmp_path, product):
    marked = "\n".join(f"before\n{start}\nold\n{end}" for start, end in (cards.README_MARKS, cards.SPEED_MARKS))
    report = reports.write(tmp_path / "r", product=product)
    if product:
        benchmark.write(report.folder / benchmark.FILE_NAME, [benchmark.Row("Memory", "MB", 1380.0, 401.5, limit=450)])
    text = cards.readme(f"{marked}\nafter\n", report)
    golden.check(GOLDEN_DIR / f"README_{'product' if product else 'clips'}.md", text)
    with pytest.raises(BuildError, match="marks"):
        cards.readme("no marks", results.read(tmp_path))


def test_the_committed_cards_and_readme_are_current():
    report = results.read(results.FULL_DIR)
    readme = cards.README_PATH.read_text(encoding="utf-8")
    assert readme == cards.readme(readme, report)
    assert (cards.DOCS_DIR / "DATA_CARD.md").read_text(encoding="utf-8") == data_card.card(data_card.read(report))
    model_card = (cards.DOCS_DIR / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert model_card == cards.model_card(report)


def test_the_readme_is_short_and_names_no_machine_path():
    text = cards.README_PATH.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 140
    assert str(config.PROJECT_DIR) not in text and "/home/" not in text
    assert (config.PROJECT_DIR / "LICENSE").is_file()
