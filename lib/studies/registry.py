"""The studies as steps of a build: what each reads and writes, and which notebook reads it. Standard library only.

Placeholders: {data}, {models}, {params}, {full} (build/full) and {build} (build/studies). A study is a module with
``run(inputs) -> Result``, and ``draw(tables) -> {name: Figure}`` where it has figures.
"""

from __future__ import annotations

from lib.reporting.steps import Step

_DATA = ("{data}/manifest.csv", "{data}/raw_manifest.csv")
_LEFT_OUT = "{build}/tables/left_out.csv"
_SEEDS = "{build}/tables/seeds.csv"
_PROBABILITIES = ("{full}/probabilities/yamnet.csv", "{full}/probabilities/wav2vec2.csv")
_NETWORKS = (*_DATA, "{full}/models", *_PROBABILITIES)


def _study(name: str, inputs: tuple[str, ...], tables: tuple[str, ...], **options: str | tuple[str, ...]) -> Step:
    outputs = tuple(f"{{build}}/tables/{table}.csv" for table in tables)
    return Step(name, inputs, outputs, module=f"lib.studies.{name}", **options)


_CALIBRATION = ("measures", "bins", "coverage_risk", "abstain", "thresholds", "costs")
STUDIES: tuple[Step, ...] = (
    # Train networks: hours on two cores.
    _study("left_out", _DATA, ("left_out",), trains=("left_out",), before="05_ensemble"),
    _study("seeds", _DATA, ("seeds",), trains=("full", "seed_8", "seed_9")),
    # Fit heads on frozen networks: an hour each at most.
    _study("ablation", _DATA, ("ablation",), variables=("TFHUB_CACHE_DIR",)),
    _study("options", _DATA, ("options",), variables=("TFHUB_CACHE_DIR",)),
    _study("pretraining_gain", (*_DATA, "{models}/wav2vec2_pretrained"), ("pretraining", "pretraining_tried")),
    _study("common_mistakes", _NETWORKS, ("common_mistakes",)),
    _study("esc10", _DATA, (), variables=("TFHUB_CACHE_DIR",)),
    # Judge the networks and the rule of the full build: minutes each.
    _study("cross_corpus", (*_NETWORKS, _LEFT_OUT), ("cross_corpus", "left_out_scores")),
    _study("hard_negatives", (*_NETWORKS, _LEFT_OUT), ("hard_negatives_test", "hard_negatives_left_out")),
    _study("calibration", (*_NETWORKS, _LEFT_OUT), tuple(f"calibration_{name}" for name in _CALIBRATION)),
    _study("spread", (*_NETWORKS, _SEEDS), ("spread", "spread_differences")),
    _study("shortcuts", _NETWORKS, ("shortcuts", "cue_destroyed")),
    _study("robustness", _NETWORKS, ("robustness",)),
    _study("long_recordings", _NETWORKS, ("soundscape_references", "soundscape_curve", "soundscape_example")),
)
