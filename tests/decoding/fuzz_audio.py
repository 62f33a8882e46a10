"""Mutation fuzzing of lib.audio: good files of every container, spoiled at random, are accepted or refused by name.

`python -m tests.decoding.fuzz_audio --mutants 200000 --seed 1` runs it at length and prints a summary.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[2]
for folder in (PROJECT_DIR, PROJECT_DIR / "tests" / "decoding"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import audio_bytes  # noqa: E402
import numpy as np  # noqa: E402

from lib import audio  # noqa: E402

HANG_SECONDS = 2.0
N_PROCESSES = 2
INTERESTING = (0, 1, 2, 3, 16, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass
class Summary:
    """What became of the mutants."""

    n_mutants: int = 0
    outcomes: Counter = field(default_factory=Counter)  # "accepted" or the error's name
    hangs: list = field(default_factory=list)  # mutant numbers
    uncaught: list = field(default_factory=list)  # (mutant number, error)
    unfit: list = field(default_factory=list)  # (mutant number, why the waveform breaks the contract)
    slowest_seconds: float = 0.0

    def __add__(self, other: Summary) -> Summary:
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Summary(**sums | {"slowest_seconds": max(self.slowest_seconds, other.slowest_seconds)})

    def __str__(self) -> str:
        lines = [f"{self.n_mutants} mutants", f"accepted: {self.outcomes['accepted']}"]
        lines += [f"refused, {name}: {count}" for name, count in self.outcomes.most_common() if name != "accepted"]
        lines += [f"hangs over {HANG_SECONDS:.0f} s: {len(self.hangs)} {self.hangs[:5]}"]
        lines += [f"uncaught: {len(self.uncaught)} {self.uncaught[:5]}"]
        lines += [f"accepted but unfit for a model (not finite, out of range): {len(self.unfit)} {self.unfit[:5]}"]
        return "\n".join([*lines, f"slowest: {self.slowest_seconds:.2f} s"])


@lru_cache(maxsize=1)
def parents() -> list[bytes]:
    """Return short good files, one for each container and codec."""
    float_pcm, short = audio_bytes.FLOATS[:19_200], {"seconds": 0.3}
    return [
        audio_bytes.wav(audio_bytes.PCM[:9_600]),
        audio_bytes.wav(audio_bytes.PCM[:9_600], channels=2),
        audio_bytes.wav(float_pcm, tag=3, bits=32),
        audio_bytes.wav(float_pcm, tag=0xFFFE, bits=32, tail=audio_bytes.extensible(3, valid_bits=32)),
        audio_bytes.aiff(n_frames=4_800),
        audio_bytes.caf(audio_bytes.PCM[:9_600]),
        *(audio_bytes.encoded("WAV", codec, 0.3) for codec in ("ULAW", "PCM_24", "MS_ADPCM", "IMA_ADPCM", "GSM610")),
        *(audio_bytes.encoded("FLAC", codec, 0.3) for codec in ("PCM_16", "PCM_24")),
        *(audio_bytes.encoded("OGG", codec, 0.3) for codec in ("VORBIS", "OPUS") for _ in range(2)),
        *(audio_bytes.encoded("MP3", "MPEG_LAYER_III", seconds) for seconds in (0.3, 0.6)),
        audio_bytes.encoded("AIFF", "IMA_ADPCM", 0.3),
        audio_bytes.by_av("caf", "adpcm_ima_qt", **short),
        audio_bytes.by_av("ipod", "aac", **short),
        audio_bytes.by_av("3gp", "libopencore_amrnb", 8_000, **short),
        audio_bytes.by_av("amr", "libopencore_amrnb", 8_000, **short),
        audio_bytes.by_av("webm", "libopus", 48_000, **short),
        audio_bytes.by_av("mp4", "aac", film=True, **short),
        audio_bytes.by_av("mpegts", "aac", film=True, **short),
        audio_bytes.by_av("asf", "wmav2", 44_100, bit_rate=64_000, **short),
        audio_bytes.by_av("avi", "libmp3lame", 44_100, film=True, **short),
        *(audio_bytes.by_av(container, codec, **short) for container, codec in (("wv", "wavpack"), ("tta", "tta"))),
        *(audio_bytes.by_av("adts", "aac", **short), audio_bytes.by_av("ac3", "ac3", 48_000, **short)),
    ]


def mutant(seed: int, number: int) -> bytes:
    """Return one mutant; the same for the same seed and number."""
    rng = np.random.default_rng((seed, number))
    data = bytearray(parents()[rng.integers(len(parents()))])
    for _ in range(rng.integers(1, 6)):
        MUTATIONS[rng.integers(len(MUTATIONS))](data, rng)
    if data[:4] == b"OggS" and rng.random() < 0.7:
        return _resealed(bytes(data))  # past the checksum, to the decoder
    return bytes(data)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """Half of the mutations strike the header, where they can do most."""
    n_bytes = min(len(data), 128) if rng.random() < 0.5 else len(data)
    return int(rng.integers(n_bytes)) if n_bytes else 0


def _flip(data: bytearray, rng: np.random.Generator) -> None:
    at = _place(data, rng)
    data[at : at + 1] = bytes(byte ^ 1 << rng.integers(8) for byte in data[at : at + 1])


def _number(data: bytearray, rng: np.random.Generator) -> None:
    at, value = _place(data, rng), int(rng.choice(INTERESTING))
    new = struct.pack("<I" if rng.random() < 0.5 else ">I", value)[: int(rng.choice((1, 2, 4)))]
    data[at : at + len(new)] = new


def _noise(data: bytearray, rng: np.random.Generator) -> None:
    at, n_bytes = _place(data, rng), int(rng.integers(1, 64))
    data[at : at + n_bytes] = rng.bytes(n_bytes)


def _zeros(data: bytearray, rng: np.random.Generator) -> None:
    at, n_bytes = _place(data, rng), int(rng.integers(1, 256))
    data[at : at + n_bytes] = bytes(n_bytes)


def _delete(data: bytearray, rng: np.random.Generator) -> None:
    at = _place(data, rng)
    del data[at : at + int(rng.integers(1, 64))]


def _repeat(data: bytearray, rng: np.random.Generator) -> None:
    at, n_bytes = _place(data, rng), int(rng.integers(1, 512))
    data[at:at] = data[at : at + n_bytes]


def _truncate(data: bytearray, rng: np.random.Generator) -> None:
    if rng.random() < 0.2:
        del data[_place(data, rng) :]


def _splice(data: bytearray, rng: np.random.Generator) -> None:
    if rng.random() < 0.2:
        other = parents()[rng.integers(len(parents()))]
        at = _place(data, rng)
        data[at : at + 200] = other[at : at + 200]


MUTATIONS = (_flip, _flip, _number, _number, _noise, _zeros, _delete, _repeat, _truncate, _splice)


def _resealed(data: bytes) -> bytes:
    """Put the checksums of all whole OGG pages right."""
    done = b""
    while data[:4] == b"OggS" and len(data) > 27:
        n_lacing = data[26]
        n_bytes = 27 + n_lacing + sum(data[27 : 27 + n_lacing])
        done, data = done + audio_bytes.sealed(data[:n_bytes]), data[n_bytes:]
    return done + data


def attempt(path: Path, number: int, summary: Summary) -> None:
    """Load one file and book what happens."""
    summary.n_mutants += 1
    start = time.monotonic()
    try:
        waveform = audio.load(path)
    except audio.AudioError as error:
        outcome = type(error).__name__
    except Exception as error:  # noqa: BLE001 - this is what is being looked for
        outcome = "uncaught"
        summary.uncaught.append((number, repr(error)))
    else:
        outcome = "accepted"
        try:
            audio.check_waveform(waveform, sample_rate_hz=16_000)
        except audio.AudioError as error:
            summary.unfit.append((number, str(error)))
    seconds = time.monotonic() - start
    summary.outcomes[outcome] += 1
    summary.slowest_seconds = max(summary.slowest_seconds, seconds)
    if seconds > HANG_SECONDS:
        summary.hangs.append(number)


def fuzz(seed: int, numbers: range) -> Summary:
    """Try the mutants of these numbers.

    What takes over 2 s is tried again on the spot and counts as a hang if it does so twice: a busy machine may halt any
    process for that long.
    """
    summary = Summary()
    with tempfile.TemporaryDirectory() as root:
        for number in numbers:
            path = Path(root, "mutant")
            path.write_bytes(mutant(seed, number))
            attempt(path, number, summary)
            if summary.hangs and summary.hangs[-1] == number:
                again = Summary()
                attempt(path, number, again)
                if not again.hangs:
                    summary.hangs.pop()
    return summary


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    start = time.monotonic()
    blocks = [range(first, min(first + 1000, arguments.mutants)) for first in range(0, arguments.mutants, 1000)]
    total = Summary()
    with ProcessPoolExecutor(N_PROCESSES, mp_context=get_context("spawn")) as pool:
        for part in pool.map(fuzz, [arguments.seed] * len(blocks), blocks):
            total += part
            if total.n_mutants % 10_000 == 0:
                found = f"{len(total.hangs)} hangs, {len(total.uncaught)} uncaught, {len(total.unfit)} unfit"
                line = f"{total.n_mutants} mutants, {total.outcomes['accepted']} accepted, {found}"
                print(f"{line}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)  # noqa: T201
    print(f"{total}\n{time.monotonic() - start:.0f} s in {N_PROCESSES} processes")  # noqa: T201
    sys.exit(bool(total.hangs or total.uncaught or total.unfit))


if __name__ == "__main__":
    main()
