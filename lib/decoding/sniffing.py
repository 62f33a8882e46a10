"""Recognise a container by its first bytes, never by its name, and read its header."""

from __future__ import annotations

from lib.decoding import boxes, containers, streams
from lib.decoding.audio_errors import NotAudio, UnsupportedFormat
from lib.decoding.containers import Header, Source

FOREIGN = {  # first bytes -> what they mean for somebody who expected a recording
    b"RIFX": "big-endian WAV",
    b"RF64": "RF64, WAV of more than 4 GiB",
    b".snd": "Sun AU",
    b"riff\x2e\x91": "Sony Wave64",
    b"\x30\x26\xb2\x75": "Windows Media (ASF)",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"DSD ": "DSD",
    b"MThd": "MIDI, which holds notes and no sound",
}
STRANGERS = {
    b"version https://git-lfs": "a Git LFS pointer instead of the recording: run `git lfs pull`",
    b"<": "a web page or XML, perhaps an error page of a download",
    b"{": "JSON",
    b"#EXTM3U": "a playlist",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
}


def read_header(source: Source) -> Header:
    """Recognise the container by its first bytes, never by its name, and read its header."""
    head = source.peek(0, 64)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return containers.read_wav(source)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return containers.read_aiff(source)
    if head[:4] == b"caff":
        return containers.read_caf(source)
    if head[:4] == b"OggS":
        return streams.read_ogg(source)
    if head[4:8] == b"ftyp":
        return boxes.read_mp4(source)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return boxes.read_matroska(source)
    for magic in streams.AMR_FRAME_BYTES:
        if head.startswith(magic):
            return streams.read_amr(source, magic)
    return _read_tagged(source, head)


def _read_tagged(source: Source, head: bytes) -> Header:
    """Read FLAC and MP3, which may follow ID3 tags; say what anything else looks like."""
    offset = streams.mp3_tag_bytes(head[:32]) if head[:3] == b"ID3" else 0
    head = source.peek(offset, 64)
    if head[:4] == b"fLaC":
        return containers.read_flac(source, offset)
    if _has_mp3_frames(source, offset):
        return streams.read_mp3(source, offset)
    if head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        raise UnsupportedFormat("it is bare AAC (ADTS)", source.path)
    for magic, meaning in FOREIGN.items():
        if head.startswith(magic):
            raise UnsupportedFormat(f"it is {meaning}", source.path)
    for magic, meaning in STRANGERS.items():
        if head.lstrip().startswith(magic):
            raise NotAudio(f"it is {meaning}", source.path)
    raise NotAudio(f"its first bytes, {head[:8].hex(' ') or 'none'}, belong to no known container", source.path)


def _has_mp3_frames(source: Source, offset: int) -> bool:
    """Whether two MPEG frames follow each other, or one fills the file: a single one is found in any noise."""
    frame = streams.mp3_frame(source.peek(offset, 4))
    if frame is None:
        return False
    follower = source.peek(offset + frame[0], 4)
    return not follower or (streams.mp3_frame(follower) or (0,))[1:] == frame[1:] or follower[:3] == b"TAG"
