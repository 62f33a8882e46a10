"""Acquisition: three tiers by one path, nothing silent, nothing from the network where it is not wanted."""

import json
import socket

import pytest
from corpus_files import small_index, write_mirror
from file_server import serving

from lib import config, manifest
from lib.corpora import acquisition


@pytest.fixture
def no_socket(monkeypatch):
    """Fail a test that opens a socket or looks a name up."""
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("no socket may be opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert attempts == []


def record():
    return json.loads(config.ACQUISITION_PATH.read_text())


def test_the_index_is_sound():
    index, table = acquisition.clips(), acquisition.sources()
    assert len(index) == 2998
    assert index["sha256"].is_unique and index["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert index["clip_id"].is_unique and set(index["label"]) == set(config.CLASS_NAMES)
    assert set(index["source"]) == set(table["source"])
    assert table["commit"].str.fullmatch("[0-9a-f]{40}").all()
    needed = ["title", "url", "commit", "megabytes", "account", "label_rule", "group_rule", "licence", "citation"]
    assert (table[needed] != "").all(axis=None)
    assert acquisition.lacking_classes(index) == ""
    (item,) = [item for item in acquisition.items(index) if item.path == "Assets/positive/Scream+25.wav"]
    commit = "fee7ff3168ee5a45bbab0965a47174cbfad5b574"
    assert item.remote == f"LadyTuna/human-scream-detection-onnx/{commit}/Assets/positive/Scream+25.wav"
    assert item.target == config.RAW_DIR / "ladytuna/Assets/positive/Scream+25.wav"


def test_cry_segments_are_inside_cries_and_in_order():
    segments = acquisition.cry_segments()
    recordings = acquisition.clips().set_index("sha256").loc[segments["sha256"]].reset_index()
    assert len(segments) == 1768 and segments["sha256"].nunique() == 423
    assert set(recordings["label"]) == {"crying"}
    assert (segments["onset_seconds"] >= 0).all() and (segments["onset_seconds"] < segments["offset_seconds"]).all()
    assert (segments["offset_seconds"] <= recordings["duration_seconds"] + 0.001).all()
    following = segments.groupby("sha256")["onset_seconds"].shift(-1)
    assert (following.isna() | (following >= segments["offset_seconds"])).all()


@pytest.mark.parametrize("path", ["../x.wav", "/etc/passwd", "a/../../x.wav", "a\nb.wav", "a\\b.wav", "a\x00.wav"])
def test_an_index_that_leads_out_is_refused(path, tmp_path, monkeypatch):
    index, _ = small_index()
    index.loc[3, "path"] = path
    index.to_csv(tmp_path / "clips.csv", index=False)
    monkeypatch.setattr(acquisition, "CLIPS_PATH", tmp_path / "clips.csv")
    with pytest.raises(ValueError, match=r"does not stay inside|C error|null|NUL"):
        acquisition.clips()


def test_the_mirror_comes_first_and_opens_no_socket(mirror, no_socket):
    result = acquisition.acquire("auto")
    assert (result.tier, len(result.manifest), len(result.failures), result.skipped) == ("mirror", 12, 0, {})
    read = manifest.read(config.RAW_MANIFEST_PATH)
    assert read.equals(result.manifest) and set(read["tier"]) == {"mirror"}
    assert all((config.DATA_DIR / path).is_file() for path in read["path"])
    assert record() == {
        "tier": "mirror",
        "n_clips": 12,
        "sources": {"donateacry": 4, "emodb": 4, "ladytuna": 4},
        "failures": [],
        "skipped": {},
    }
    assert acquisition.validate().empty


def test_a_mirror_with_gaps_is_taken_and_the_gaps_told(small, mirror):
    names = sorted(small)
    (mirror / names[0]).unlink()
    (mirror / names[4]).write_bytes(b"something else")
    result = acquisition.acquire("real")
    assert len(result.manifest) == 10
    reasons = sorted(result.failures["reason"])
    assert reasons[0] == "not in the mirror" and "SHA-256 differs" in reasons[1]
    assert {(row["n_clips"], row["source"]) for row in record()["failures"]} == {
        (1, source) for source in result.failures["source"]
    }


def test_the_network_gives_the_same_manifest_as_the_mirror(small, tmp_path, monkeypatch):
    with serving(small) as server:
        monkeypatch.setattr(acquisition, "BASE_URL", server.url)
        by_network = acquisition.acquire("auto")
        assert by_network.tier == "network"
        assert by_network.skipped == {"mirror": "AUDIO_MIRROR is not set"}
        assert len(server.requests) == 12
        again = acquisition.acquire("auto")
        assert len(server.requests) == 12  # all is there
    monkeypatch.setenv("AUDIO_MIRROR", str(write_mirror(tmp_path / "mirror", small)))
    for other in (again, acquisition.acquire("auto")):
        columns = [name for name in manifest.RAW_COLUMNS if name != "tier"]
        assert other.manifest[columns].equals(by_network.manifest[columns])


def test_a_missing_class_is_no_corpus(small, monkeypatch):
    files = {name: content for name, content in small.items() if "crying" not in name}
    with serving(files) as server:
        monkeypatch.setattr(acquisition, "BASE_URL", server.url)
        with pytest.raises(acquisition.NoRealAudioError, match=r"network: 4 of 12 .* 404 \(crying: 0 of at least 3"):
            acquisition.acquire("real")
    assert not config.RAW_MANIFEST_PATH.exists()


def test_without_mirror_or_network_auto_generates_and_says_so_and_real_refuses(small, tmp_path, monkeypatch):
    monkeypatch.setattr(acquisition, "BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AUDIO_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(acquisition.NoRealAudioError, match=r"is no folder; network: connection refused.*AUDIO_MIRROR"):
        acquisition.acquire("real")
    assert not (config.RAW_DIR / "synthetic").exists()
    monkeypatch.delenv("AUDIO_MIRROR")
    result = acquisition.acquire("auto", n_synthetic_groups=3)
    assert result.tier == record()["tier"] == "synthetic" and set(result.manifest["tier"]) == {"synthetic"}
    assert result.skipped == {"mirror": "AUDIO_MIRROR is not set", "network": "connection refused"}
    with pytest.raises(ValueError, match="'reel', expected one of"):
        acquisition.acquire("reel")


def test_neither_offline_mode_nor_generated_audio_opens_a_socket(small, no_socket, monkeypatch):
    result = acquisition.acquire("synthetic", n_synthetic_groups=3)
    assert result.skipped == {} and len(result.manifest) == 18
    monkeypatch.setenv("AUDIO_OFFLINE", "1")
    with pytest.raises(acquisition.NoRealAudioError, match="network: offline mode"):
        acquisition.acquire("real")
    assert acquisition.acquire("auto", n_synthetic_groups=3).tier == "synthetic"


def test_offline_mode_uses_what_an_earlier_run_fetched(small, no_socket, monkeypatch):
    monkeypatch.setenv("AUDIO_OFFLINE", "1")
    write_mirror(config.RAW_DIR, {f"{source}/{path}": content for (source, path), content in small_index()[1].items()})
    (config.RAW_DIR / "donateacry/a b/crying [0].wav").unlink()
    result = acquisition.acquire("real")
    assert (result.tier, len(result.manifest)) == ("network", 11)
    assert result.failures["reason"].tolist() == ["offline mode (AUDIO_OFFLINE)"]


def test_validate_names_missing_changed_and_extra(mirror):
    acquisition.acquire("real")
    paths = [item.target for item in acquisition.items(acquisition.clips())]
    paths[0].unlink()
    paths[1].write_bytes(b"changed")
    (config.RAW_DIR / "emodb/new.wav").write_bytes(b"new")
    problems = dict(acquisition.validate().itertuples(index=False))
    relative = [path.relative_to(config.DATA_DIR).as_posix() for path in paths]
    assert problems == {relative[0]: "missing", relative[1]: "changed", "raw/emodb/new.wav": "extra"}


def test_data_may_be_a_link_to_another_disk(mirror, tmp_path):
    (tmp_path / "drive").mkdir()
    config.DATA_DIR.symlink_to(tmp_path / "drive", target_is_directory=True)
    mirrored = acquisition.acquire("real")
    generated = acquisition.acquire("synthetic", n_synthetic_groups=3)
    for path in [*mirrored.manifest["path"], *generated.manifest["path"]]:
        assert (tmp_path / "drive" / path).is_file()


@pytest.mark.real_audio
def test_the_whole_mirror_is_as_the_index_says(mirror_dir, no_socket, monkeypatch):
    monkeypatch.setenv("AUDIO_MIRROR", str(mirror_dir))
    result = acquisition.acquire("real")
    assert (len(result.manifest), len(result.failures)) == (2998, 0)
