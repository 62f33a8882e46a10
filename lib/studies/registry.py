"""The studies as steps of a build: what each reads and writes, and which notebook reads it. Standard library only.

Placeholders: {data}, {models}, {params}, {full} (build/full) and {build} (build/studies). A study is a module with
``run(inputs) -> Result``, and ``draw(tables) -> {name: Figure}`` where it has figures.
"""

from __future__ import annotations

from typing import Any

from lib.reporting.steps import Step

_DATA = ("{data}/manifest.csv", "{data}/raw_manifest.csv")
_PRETRAINED = "{models}/wav2vec2_pretrained"
_NETWORKS = (*_DATA, "{full}/models", "{full}/probabilities")


def _study(name: str, inputs: tuple[str, ...], tables: tuple[str, ...], **options: Any) -> Step:
    outputs = tuple(f"{{build}}/tables/{table}.csv" for table in tables)
    return Step(name, inputs, outputs, module=f"lib.studies.{name}", **options)


_CALIBRATION = ("measures", "bins", "coverage_risk", "abstain")
STUDIES: tuple[Step, ...] = (
    # Judge what the notebooks predicted: a minute each.
    _study("cross_corpus", _NETWORKS, ("cross_corpus", "left_out_scores")),
    _study("calibration", _NETWORKS, tuple(f"calibration_{name}" for name in _CALIBRATION)),
    _study("esc10", _DATA, (), variables=("TFHUB_CACHE_DIR",)),
    # Run the networks on changed clips, or fit many heads: ten minutes to an hour each on two cores.
    _study("shortcuts", _DATA, ("shortcuts",), on_request=True),
    _study("robustness", _NETWORKS, ("robustness",), on_request=True),
    _study("common_mistakes", _NETWORKS, ("common_mistakes",), on_request=True),
    _study("options", _DATA, ("options",), on_request=True),
    _study("pretraining_gain", (*_DATA, _PRETRAINED), ("pretraining", "pretraining_tried"), on_request=True),
    # Trains the detector, writes models/detector and measures it: half an hour.
    _study(
        "product",
        _NETWORKS,
        ("detector_curve_test", "detector_timeline"),
        variables=("TFHUB_CACHE_DIR",),
        on_request=True,
    ),
)
