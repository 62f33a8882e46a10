"""Optional corpora: off unless asked, never downloaded without a hash, labels and groups by rule, absences told."""

import hashlib

import pytest
from corpus_files import small_index, wav_bytes, write_mirror, zip_of
from file_server import serving

from lib import config, manifest
from lib.corpora import acquisition, optional, rules

ESC50 = {
    "ESC-50-x/audio/1-100032-A-0.wav": wav_bytes(1),
    "ESC-50-x/audio/1-187207-A-20.wav": wav_bytes(2),
    "ESC-50-x/audio/5-187207-B-20.wav": wav_bytes(3),
    "ESC-50-x/audio/2-9999-C-26.wav": wav_bytes(4),
    "ESC-50-x/audio/2-8888-A-42.wav": wav_bytes(5),
    "ESC-50-x/meta/esc50.csv": b"filename\n",
}
AUDIOSET = b"""# Segments csv created Sun Mar  5 10:54:31 2017
# YTID, start_seconds, end_seconds, positive_labels
aaa, 30.000, 40.000, "/t/dd00002,/m/03qc9zr"
bbb, 30.000, 40.000, "/m/03qc9zr,/m/09x0r"
ccc, 0.000, 10.000, "/m/0ytgt"
ddd, 0.000, 10.000, "/m/0463cq4"
eee, 0.000, 10.000, "/m/09x0r"
"""
ICSD = b"""filename\tonset\toffset\tevent_label
cry_01.wav\t0\t1\tSnoring
cry_01.wav\t2\t3\tInfantcry
snore_01.wav\t0\t2\tSnoring
"""
COMMON_VOICE = b"client_id\tpath\tsentence\n" + b"".join(
    [*(b'abc\t%d.mp3\tquote " here\n' % i for i in range(4)), b"xyz\t../../evil.mp3\tx\n"]
)
# corpus: its files by name, and the rows that its rule finds in them
RULES = {
    "esc50": (
        dict.fromkeys(ESC50, b""),
        [
            ("1-100032-A-0.wav", "normal", "animal", "fs:100032"),
            ("1-187207-A-20.wav", "crying", "infant_cry", "fs:187207"),
            ("2-8888-A-42.wav", "normal", "siren", "fs:8888"),
            ("2-9999-C-26.wav", "normal", "laugh", "fs:9999"),
            ("5-187207-B-20.wav", "crying", "infant_cry", "fs:187207"),
        ],
    ),
    "librispeech": (
        {f"LibriSpeech/dev-clean/84/121/84-121-000{i}.flac": b"" for i in range(5)},
        [(f"84-121-000{i}.flac", "normal", "speech_adult", "librispeech:84") for i in range(3)],
    ),
    "speechocean762_all": (
        {f"s/WAVE/SPEAKER0003/{i}.WAV": b"" for i in range(5)}
        | {"s/WAVE/SPEAKER0024/x.WAV": b"", "s/train/spk2age": b"0003 9\n0024 31\n"},
        [(f"{i}.WAV", "normal", "speech_child", "so762:0003") for i in range(3)]
        + [("x.WAV", "normal", "speech_adult", "so762:0024")],
    ),
    "audioset": (
        {f"audio/bal_train/{name}.flac": b"" for name in ("aaa", "bbb", "ccc", "eee")}
        | {"balanced_train_segments.csv": AUDIOSET},
        [
            ("aaa.flac", "crying", "cry", "yt:aaa"),
            ("bbb.flac", "screaming", "scream", "yt:bbb"),
            ("ccc.flac", "normal", "speech_child", "yt:ccc"),
        ],
    ),
    "kaggle_screaming": (
        dict.fromkeys(("Screaming/girl_1.wav", "Screaming/girl_2.wav", "NotScreaming/tv.wav"), b""),
        [
            ("girl_1.wav", "screaming", "scream", "kscream:girl"),
            ("girl_2.wav", "screaming", "scream", "kscream:girl"),
            ("tv.wav", "normal", "other", "kscream:tv"),
        ],
    ),
    "icsd": (
        {f"audio/{name}.wav": b"" for name in ("cry_01", "snore_01", "dog")} | {"metadata/a.tsv": ICSD},
        [
            ("cry_01.wav", "crying", "infant_cry", "icsd:cry"),
            ("snore_01.wav", "normal", "body", "icsd:snore"),
        ],
    ),
    "common_voice": (
        {f"en/clips/{i}.mp3": b"" for i in range(4)} | {"en/validated.tsv": COMMON_VOICE, "../evil.mp3": b""},
        [(f"{i}.mp3", "normal", "speech_adult", "cv:abc") for i in range(3)],
    ),
}


def point_to(monkeypatch, url, content):
    """Let the table say that ESC-50 is at `url` with this content."""
    table = optional.table()
    table.loc[table["source"] == "esc50", ["url", "sha256"]] = [url, hashlib.sha256(content).hexdigest()]
    monkeypatch.setattr(optional, "table", table.copy)


def put_archive(monkeypatch, content):
    """Put ESC-50's archive where a download would put it."""
    point_to(monkeypatch, "https://nowhere.invalid/esc.zip", content)
    write_mirror(config.RAW_DIR / optional.ARCHIVES_DIR / "esc50", {"esc.zip": content})


def test_the_table_says_all_that_is_asked_of_it():
    further = optional.table().set_index("source").query("kind != 'files'")
    assert set(further.index) == set(rules.RULES) == set(RULES)
    needed = ["title", "url", "commit", "account", "label_rule", "group_rule", "licence", "citation", "gives"]
    assert (further[needed] != "").all(axis=None)
    by_hand = further["kind"] == "by hand"
    assert (further.loc[by_hand, "how_to_get"] != "").all()
    assert further.loc[~by_hand, "sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert further["url"].str.startswith("https://").all()


@pytest.mark.parametrize("name", RULES)
def test_labels_and_groups_are_read_by_rule(name, tmp_path):
    files, expected = RULES[name]
    found = rules.RULES[name](write_mirror(tmp_path / "corpus", files))
    assert sorted((row.path.name, row.label, row.subtype, row.group_id) for row in found) == expected


def test_none_is_taken_unless_asked_for_and_an_unknown_one_is_named(mirror):
    assert set(acquisition.acquire("real").manifest["source"]) == {"donateacry", "ladytuna", "emodb"}
    with pytest.raises(optional.CorpusError, match="no optional corpus 'esc5'; there are esc50"):
        optional.check(["esc5"])


def test_what_has_to_be_downloaded_by_hand_is_said_before_anything_is_fetched_and_read_once_it_is_there(mirror):
    with pytest.raises(optional.CorpusError, match=r"Sign in at huggingface.co.* Unpack it into .*raw/icsd"):
        acquisition.acquire("real", extra=["icsd"])
    assert not config.RAW_DIR.exists()
    write_mirror(config.RAW_DIR / "icsd", {"cry_01.wav": wav_bytes(1), "a.tsv": ICSD})
    result = acquisition.acquire("real", extra=["icsd"])
    assert result.manifest.query("source == 'icsd'")["group_id"].tolist() == ["icsd:cry"]


def test_an_archive_is_fetched_unpacked_and_read_once(mirror, monkeypatch):
    content = zip_of(*ESC50.items())
    with serving({"esc.zip": content}) as server:
        point_to(monkeypatch, f"{server.url}/esc.zip", content)
        server.faults["esc.zip"] = ["cut"]
        result = acquisition.acquire("real", extra=["esc50"])
        n_asked = len(server.requests)
        again = acquisition.acquire("real", extra=["esc50"])
        assert len(server.requests) == n_asked  # the unpacked corpus is there
    assert again.manifest.equals(result.manifest)
    rows = result.manifest[result.manifest["source"] == "esc50"]
    assert len(rows) == 5 and len(result.failures) == 0
    assert set(rows["duration_seconds"]) == {1.0} and set(rows["sample_rate_hz"]) == {16000}
    assert manifest.read(config.RAW_MANIFEST_PATH).equals(result.manifest)


def test_a_changed_or_hostile_archive_is_left_out_and_told(mirror, monkeypatch):
    content = zip_of(*ESC50.items())
    with serving({"esc.zip": content + b"x"}) as server:
        point_to(monkeypatch, f"{server.url}/esc.zip", content)
        result = acquisition.acquire("real", extra=["esc50"])
    assert len(result.manifest) == 12
    assert result.failures[["source", "path"]].to_numpy().tolist() == [["esc50", "*"]]
    assert "SHA-256 differs" in result.failures["reason"].iloc[0]
    assert not (config.RAW_DIR / "esc50").exists()
    put_archive(monkeypatch, zip_of(*ESC50.items(), ("../evil.wav", b"x")))
    result = acquisition.acquire("real", extra=["esc50"])
    assert "does not stay inside" in result.failures["reason"].iloc[0]
    assert not list(config.RAW_DIR.rglob("evil.wav"))


def test_offline_an_archive_put_there_by_hand_is_enough(mirror, monkeypatch):
    monkeypatch.setenv("AUDIO_OFFLINE", "1")
    put_archive(monkeypatch, zip_of(*ESC50.items()))
    result = acquisition.acquire("real", extra=["esc50", "librispeech"])
    assert (result.manifest["source"] == "esc50").sum() == 5
    assert result.failures["source"].tolist() == ["librispeech"]
    assert "offline" in result.failures["reason"].iloc[0]


def test_audio_that_is_there_already_or_cannot_be_read_is_told(mirror, monkeypatch):
    known = next(iter(small_index()[1].values()))
    files = {"1-1-A-0.wav": known, "1-2-A-0.wav": b"no audio at all", "1-3-A-0.wav": wav_bytes(7)}
    put_archive(monkeypatch, zip_of(*files.items()))
    result = acquisition.acquire("real", extra=["esc50"])
    assert (result.manifest["source"] == "esc50").sum() == 1
    reasons = result.failures.set_index("path")["reason"]
    assert reasons["raw/esc50/1-1-A-0.wav"] == "the same audio is there already"
    assert len(reasons) == 2
