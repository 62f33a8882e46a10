"""Split schemes: which clips a network trains on, which choose its stage, and which it is tested on.

- grouped: the split by group of notebook 02. The result.
- random: the split of clips, blind to groups. What leakage is worth.
- initial: the grouped split, for a Wav2Vec2 that starts from initial weights. What pretraining is worth.
- released: train and validation groups together, up to the stage that the grouped split asked for; tested on the
  same test groups. What goes to models/.
- without_<family>: one family of sources left out of training and validation, and tested on. What another microphone
  in another place does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import pandas as pd

from lib import config, manifest

LEFT_OUT = "without_"


@functools.cache
def _corpus_groups() -> dict[str, str]:
    table = pd.read_csv(config.PROJECT_DIR / "lib" / "corpora" / "sources.csv", dtype=str, keep_default_na=False)
    return dict(zip(table["source"], table["corpus_group"], strict=True))


def family(source: pd.Series) -> pd.Series:
    """Return the corpus group of each source (sources.csv): corpora that share voices or copy from each other are one.

    Small corpora are pooled; a source that the table does not know is its own group.
    """
    return source.map(lambda name: _corpus_groups().get(name, name))


def left_out_schemes() -> list[str]:
    """Return ``without_<family>`` for every family in the manifest, sorted."""
    sources = manifest.read(config.MANIFEST_PATH, splits=("train", "validation"))["source"]
    return [f"{LEFT_OUT}{name}" for name in sorted(set(family(sources)))]


def read(scheme: str, *, splits: Iterable[str]) -> pd.DataFrame:
    """Read the rows of some splits of a scheme.

    Parameters
    ----------
    scheme : str
        One of those above.
    splits : iterable of str
        Of `manifest.SPLITS`. "released" has no validation rows. For a family left out, "test" is all of it, and the
        test groups of the other families are in no split.

    Returns
    -------
    DataFrame
        Manifest rows whose column split is the scheme's.

    Raises
    ------
    ValueError
        If there is no such scheme, or no clip of the family left out.
    """
    wanted = tuple(splits)
    if scheme == "random":
        return manifest.read(config.RANDOM_MANIFEST_PATH, splits=wanted)
    if scheme in ("grouped", "initial"):
        return manifest.read(config.MANIFEST_PATH, splits=wanted)
    rows = manifest.read(config.MANIFEST_PATH, splits=manifest.SPLITS if "test" in wanted else ("train", "validation"))
    if scheme == "released":
        rows = rows.assign(split=rows["split"].replace("validation", "train"))
    elif scheme.startswith(LEFT_OUT):
        rows = _leave_out(rows, scheme.removeprefix(LEFT_OUT))
    else:
        raise ValueError(f"no split scheme is called {scheme!r}: see lib.schemes.")
    return rows[rows["split"].isin(wanted)].reset_index(drop=True)


def _leave_out(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return all clips of the family as test rows, and the train and validation rows of the others."""
    left_out = family(rows["source"]) == name
    if not left_out.any():
        raise ValueError(f"no clip is of the family {name!r}: there are {sorted(set(family(rows['source'])))}.")
    return pd.concat([rows[~left_out & (rows["split"] != "test")], rows[left_out].assign(split="test")])
