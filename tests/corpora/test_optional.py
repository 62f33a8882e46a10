"""Optional corpora: off unless asked, never read without a hash, labels and groups by rule, absences told."""

import hashlib
import io
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import pytest
from corpus_files import small_index, wav_bytes
from file_server import serving

from lib import config, manifest
from lib.corpora import acquisition, optional, rules


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror of 12 small recordings, which stand for the default sources."""
    index, contents = small_index()
    monkeypatch.setattr(acquisition, "clips", index.copy)
    for item in acquisition.items(index):
        path = tmp_path / "mirror" / item.remote
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[item.source, item.path])
    return tmp_path / "mirror"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def put_archive(source, name, content):
    path = config.RAW_DIR / optional.ARCHIVES_DIR / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {name: sha256(content)}


def point_to(monkeypatch, source, url, content):
    """Let the table say that a corpus lies at `url` with this content."""
    table = optional.table()
    rows = table["source"] == source
    table.loc[rows, ["url", "sha256"]] = [url, sha256(content)]
    monkeypatch.setattr(optional, "_read", table.copy)


ESC50 = {
    "ESC-50-x/audio/1-100032-A-0.wav": wav_bytes(1),
    "ESC-50-x/audio/1-187207-A-20.wav": wav_bytes(2),
    "ESC-50-x/audio/5-187207-B-20.wav": wav_bytes(3),
    "ESC-50-x/audio/2-9999-C-26.wav": wav_bytes(4),
    "ESC-50-x/audio/2-8888-A-42.wav": wav_bytes(5),
    "ESC-50-x/meta/esc50.csv": b"filename\n",
    "ESC-50-x/run.py": b"import os",
}


def test_the_table_says_all_that_is_asked_of_it():
    table = optional.table().set_index("source")
    further = table[table["kind"] != "files"]
    assert {
        "esc50",
        "librispeech",
        "speechocean762_all",
        "audioset",
        "kaggle_screaming",
        "icsd",
        "common_voice",
    } == set(further.index)
    assert set(rules.RULES) == set(further.index)
    needed = ["title", "url", "commit", "account", "label_rule", "group_rule", "licence", "citation", "gives"]
    assert (table[needed] != "").all(axis=None)
    for row in further.itertuples():
        assert row.how_to_get or len(row.sha256) == 64
        assert row.url.startswith("https://")
        assert len(row.sha256) in (0, 64)


def test_none_is_taken_unless_asked_for(mirror):
    assert set(acquisition.acquire("real", mirror_dir=mirror).manifest["source"]) == {"donateacry", "ladytuna", "emodb"}


def test_an_unknown_corpus_is_named():
    with pytest.raises(optional.CorpusError, match="no optional corpus 'esc5'; there are esc50"):
        optional.check(["esc5"], {})


@pytest.mark.parametrize(
    ("source", "file"), [("speechocean762_all", "speechocean762.tar.gz"), ("audioset", "bal_train")]
)
def test_without_a_hash_a_corpus_is_not_read_and_the_way_is_told(source, file, mirror):
    with pytest.raises(optional.CorpusError, match=rf"no SHA-256 of {file}.*sha256sum") as error:
        acquisition.acquire("real", mirror_dir=mirror, extra=[source])
    assert "checksums" in str(error.value)
    assert not config.RAW_DIR.exists()  # told before anything was fetched


@pytest.mark.parametrize(
    ("source", "key", "step"),
    [("icsd", "HF_TOKEN", "accept its terms"), ("common_voice", "MDC_API_KEY", "make an API key")],
)
def test_without_a_key_the_way_to_one_is_told(source, key, step, monkeypatch):
    with pytest.raises(optional.CorpusError, match=f"needs an account, and {key} is not set.*{step}"):
        optional.check([source], {})
    monkeypatch.setenv(key, "x")
    assert len(optional.check([source], {})) == 1


def test_an_archive_is_fetched_unpacked_and_read_by_its_rule(mirror, monkeypatch):
    content = zip_of(ESC50)
    with serving({"esc.zip": content}) as server:
        point_to(monkeypatch, "esc50", f"{server.url}/esc.zip", content)
        server.faults["esc.zip"] = ["cut"]
        result = acquisition.acquire("real", mirror_dir=mirror, extra=["esc50"])
        n_asked = len(server.requests)
        again = acquisition.acquire("real", mirror_dir=mirror, extra=["esc50"])
        assert len(server.requests) == n_asked  # the unpacked corpus is there
    assert again.manifest.equals(result.manifest)
    rows = result.manifest[result.manifest["source"] == "esc50"].set_index("path")
    assert len(rows) == 5 and len(result.failures) == 0
    assert sorted(rows["label"]) == ["crying", "crying", "normal", "normal", "normal"]
    assert sorted(rows["subtype"]) == ["animal", "infant_cry", "infant_cry", "laugh", "siren"]
    assert rows.filter(like="187207", axis=0)["group_id"].tolist() == ["fs:187207"] * 2
    assert set(rows["duration_seconds"]) == {1.0} and set(rows["sample_rate_hz"]) == {16000}
    assert not (config.RAW_DIR / "esc50/ESC-50-x/run.py").exists()
    assert manifest.read(config.RAW_MANIFEST_PATH).equals(result.manifest)


def test_a_changed_archive_is_left_out_and_told(mirror, monkeypatch):
    with serving({"esc.zip": zip_of(ESC50) + b"x"}) as server:
        point_to(monkeypatch, "esc50", f"{server.url}/esc.zip", zip_of(ESC50))
        result = acquisition.acquire("real", mirror_dir=mirror, extra=["esc50"])
    assert len(result.manifest) == 12
    assert result.failures[["source", "path"]].to_numpy().tolist() == [["esc50", "*"]]
    assert "SHA-256 differs" in result.failures["reason"].iloc[0]
    assert not (config.RAW_DIR / "esc50").exists()


def test_a_hostile_archive_is_left_out_and_told(mirror, monkeypatch):
    content = zip_of({**ESC50, "../evil.wav": b"x"})
    point_to(monkeypatch, "esc50", "https://nowhere.invalid/esc.zip", content)
    put_archive("esc50", "esc.zip", content)
    result = acquisition.acquire("real", mirror_dir=mirror, extra=["esc50"])
    assert "does not stay inside" in result.failures["reason"].iloc[0]
    assert not list(config.RAW_DIR.rglob("evil.wav"))


def test_offline_an_archive_put_there_by_hand_is_enough(mirror):
    checksums = put_archive(
        "speechocean762_all",
        "speechocean762.tar.gz",
        tar_of({
            **{f"s/WAVE/SPEAKER0003/{i}.WAV": wav_bytes(i) for i in range(5)},
            "s/WAVE/SPEAKER0024/x.WAV": wav_bytes(99),
            "s/train/spk2age": b"0003 9\n0024 31\n",
        }),
    )  # fmt: skip
    names = ["speechocean762_all", "librispeech"]
    result = acquisition.acquire("real", mirror_dir=mirror, extra=names, checksums=checksums, offline=True)
    rows = result.manifest[result.manifest["source"] == "speechocean762_all"]
    assert rows.groupby(["group_id", "subtype"]).size().to_dict() == {
        ("so762:0003", "speech_child"): 3,  # the first three of five
        ("so762:0024", "speech_adult"): 1,
    }
    assert result.failures["source"].tolist() == ["librispeech"]
    assert "offline" in result.failures["reason"].iloc[0]


def test_audio_that_is_there_already_or_cannot_be_read_is_told(mirror):
    _, contents = small_index()
    known = next(iter(contents.values()))
    files = {"1-1-A-0.wav": known, "1-2-A-0.wav": b"no audio at all", "1-3-A-0.wav": wav_bytes(7)}
    content = zip_of(files)
    name = optional.table().set_index("source").loc["esc50", "url"].rpartition("/")[2]
    checksums = put_archive("esc50", name, content)
    result = acquisition.acquire("real", mirror_dir=mirror, extra=["esc50"], checksums=checksums)
    assert (result.manifest["source"] == "esc50").sum() == 1
    reasons = result.failures.set_index("path")["reason"]
    assert reasons["raw/esc50/1-1-A-0.wav"] == "the same audio is there already"
    assert len(reasons) == 2


def test_audioset_tells_which_segments_the_archive_lacks(mirror):
    listed = b"""# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=5
# YTID, start_seconds, end_seconds, positive_labels
aaa, 30.000, 40.000, "/t/dd00002,/m/03qc9zr"
bbb, 30.000, 40.000, "/m/03qc9zr,/m/09x0r"
ccc, 0.000, 10.000, "/m/0ytgt"
ddd, 0.000, 10.000, "/m/0463cq4"
eee, 0.000, 10.000, "/m/09x0r"
"""
    there = enumerate(["aaa", "bbb", "ccc", "eee"])
    files = {f"audio/bal_train/{name}.flac": wav_bytes(seed, format="FLAC") for seed, name in there}
    checksums = put_archive("audioset", "bal_train09.tar", tar_of(files))
    checksums |= put_archive("audioset", "balanced_train_segments.csv", listed)
    result = acquisition.acquire("real", mirror_dir=mirror, extra=["audioset"], checksums=checksums)
    rows = result.manifest[result.manifest["source"] == "audioset"].set_index("group_id")
    assert rows["label"].to_dict() == {"yt:aaa": "crying", "yt:bbb": "screaming", "yt:ccc": "normal"}
    assert result.failures[["path", "reason"]].to_numpy().tolist() == [
        ["ddd.flac", "in AudioSet's list, not in the archive"]
    ]


def test_a_folder_from_a_client_is_taken_once_it_is_vouched_for(mirror, tmp_path, monkeypatch):
    published = tmp_path / "cache"
    for name, seed in (("Screaming/girl_1.wav", 1), ("Screaming/girl_2.wav", 2), ("NotScreaming/tv.wav", 3)):
        (published / name).parent.mkdir(parents=True, exist_ok=True)
        (published / name).write_bytes(wav_bytes(seed))
    asked = []
    client = SimpleNamespace(dataset_download=lambda handle: asked.append(handle) or str(published))
    monkeypatch.setitem(sys.modules, "kagglehub", client)
    first = acquisition.acquire("real", mirror_dir=mirror, extra=["kaggle_screaming"])
    digest = optional.tree_digest(published)
    assert digest in first.failures["reason"].iloc[0] and len(first.manifest) == 12
    result = acquisition.acquire(
        "real", mirror_dir=mirror, extra=["kaggle_screaming"], checksums={"kaggle_screaming": digest}
    )
    rows = result.manifest[result.manifest["source"] == "kaggle_screaming"]
    assert rows.groupby(["label", "group_id"]).size().to_dict() == {
        ("normal", "kscream:tv"): 1,
        ("screaming", "kscream:girl"): 2,
    }
    assert asked == ["whats2000/human-screaming-detection-dataset"]


def test_a_client_that_is_not_installed_is_told(mirror, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    result = acquisition.acquire("real", mirror_dir=mirror, extra=["kaggle_screaming"])
    assert "pip install kagglehub" in result.failures["reason"].iloc[0]


def test_the_digest_of_a_folder_sees_names_and_bytes(tmp_path):
    def digest(**files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return optional.tree_digest(folder)

    assert digest(a=b"1", b=b"2") == digest(b=b"2", a=b"1")
    assert len({digest(a=b"1"), digest(a=b"2"), digest(b=b"1"), digest(a=b"1", b=b"")}) == 4


def test_rules_of_librispeech_icsd_and_common_voice(tmp_path):
    def write(name, content=b""):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)

    for i in range(5):
        write(f"libri/LibriSpeech/dev-clean/84/121/84-121-000{i}.flac")
    found, _ = rules.librispeech(tmp_path / "libri")
    assert [(row.group_id, row.subtype) for row in found] == [("librispeech:84", "speech_adult")] * 3

    for name in ("cry_01.wav", "cry_02.wav", "snore_01.wav", "dog.wav"):
        write(f"icsd/audio/{name}")
    table = b"filename\tonset\toffset\tevent_label\ncry_01.wav\t0\t1\tSnoring\ncry_01.wav\t2\t3\tInfantcry\n"
    write("icsd/metadata/a.tsv", table + b"cry_02.wav\t0\t1\tInfantcry\nsnore_01.wav\t0\t2\tSnoring\n")
    found, _ = rules.icsd(tmp_path / "icsd")
    assert [(row.path.name, row.label, row.group_id) for row in found] == [
        ("cry_01.wav", "crying", "icsd:cry"),
        ("cry_02.wav", "crying", "icsd:cry"),
        ("snore_01.wav", "normal", "icsd:snore"),
    ]

    for i in range(4):
        write(f"cv/en/clips/{i}.mp3")
    rows = b"".join(b'abc\t%d.mp3\tquote " here\n' % i for i in range(4)) + b"xyz\t../../evil.mp3\tx\n"
    write("cv/en/validated.tsv", b"client_id\tpath\tsentence\n" + rows)
    found, _ = rules.common_voice(tmp_path / "cv")
    assert [(row.path.name, row.group_id) for row in found] == [(f"{i}.mp3", "cv:abc") for i in range(3)]
