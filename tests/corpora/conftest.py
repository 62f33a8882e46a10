"""Every test of the corpora works in a data folder of its own, without the variables of this machine."""

import pytest
from corpus_files import small_index, write_mirror

from lib import config
from lib.corpora import acquisition


@pytest.fixture(autouse=True)
def data_dir(request, tmp_path, monkeypatch):
    if "mirror_dir" in request.fixturenames:
        request.getfixturevalue("mirror_dir")  # before its variable is taken away
    data = tmp_path / "data"
    for name, path in {
        "DATA_DIR": data,
        "RAW_DIR": data / "raw",
        "RAW_MANIFEST_PATH": data / "raw_manifest.csv",
        "ACQUISITION_PATH": data / "acquisition.json",
    }.items():
        monkeypatch.setattr(config, name, path)
    for name in ("AUDIO_MIRROR", "AUDIO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return data


@pytest.fixture
def small(monkeypatch):
    """An index of 12 recordings instead of the project's; their bytes by where they are published."""
    index, contents = small_index()
    monkeypatch.setattr(acquisition, "clips", index.copy)
    return {item.remote: contents[item.source, item.path] for item in acquisition.items(index)}


@pytest.fixture
def mirror(small, tmp_path, monkeypatch):
    """A mirror of these 12, which AUDIO_MIRROR names."""
    monkeypatch.setenv("AUDIO_MIRROR", str(tmp_path / "mirror"))
    return write_mirror(tmp_path / "mirror", small)


@pytest.fixture
def waits(monkeypatch):
    """The waits between attempts, noted instead of slept."""
    noted = []
    monkeypatch.setattr("time.sleep", noted.append)
    return noted
