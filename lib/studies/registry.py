"""The studies as steps of a build: what each reads and writes, and which notebook reads it. Standard library only.

Placeholders: {data}, {models}, {full} (build/full) and {build} (build/studies). A study is a module with
``run(inputs) -> Result``, and ``draw(tables) -> {name: Figure}`` where it has figures.
"""

from __future__ import annotations

from typing import Any

from lib.reporting.steps import Step

_DATA = ("{data}/manifest.csv", "{data}/raw_manifest.csv")
_NETWORKS = (*_DATA, "{full}/models", "{full}/probabilities")
_HUB = ("TFHUB_CACHE_DIR",)


def _study(name: str, inputs: tuple[str, ...], tables: tuple[str, ...], **options: Any) -> Step:
    outputs = tuple(f"{{build}}/tables/{table}.csv" for table in tables)
    return Step(name, inputs, outputs, module=f"lib.studies.{name}", **options)


_CALIBRATION = tuple(f"calibration_{name}" for name in ("measures", "bins", "coverage_risk", "abstain"))
STUDIES: tuple[Step, ...] = (
    # A minute or a few each: predictions of the notebooks, cached features of frozen networks, small heads and trees.
    _study("cross_corpus", _NETWORKS, ("cross_corpus", "left_out_scores")),
    _study("calibration", _NETWORKS, _CALIBRATION),
    _study("esc10", _DATA, (), variables=_HUB),
    _study("shortcuts", _DATA, ("shortcuts",)),
    _study("common_mistakes", _NETWORKS, ("common_mistakes",), variables=_HUB),
    # Networks on sound that is in no cache: ten to twenty minutes each on two cores.
    _study("robustness", _NETWORKS, ("robustness",), on_request=True),
    _study(
        "recipe",
        (*_DATA, "{models}/wav2vec2_pretrained"),
        ("options", "pretraining", "pretraining_tried"),
        variables=_HUB,
        on_request=True,
    ),
    # Trains the detector, writes models/detector and measures it: half an hour.
    _study(
        "product",
        (*_NETWORKS, "{models}/yamnet/backbone.onnx"),
        ("detector_curve_test", "detector_timeline"),
        variables=_HUB,
        on_request=True,
    ),
)
