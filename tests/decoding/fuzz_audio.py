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
    """What became of the mutants: counts by outcome, and the numbers of those that went wrong."""

    outcomes: Counter = field(default_factory=Counter)  # "accepted" or the error's name
    wrong: list[str] = field(default_factory=list)  # hangs, uncaught errors, what is accepted and unfit for a model
    slowest_seconds: float = 0.0

    def __add__(self, other: Summary) -> Summary:
        slowest = max(self.slowest_seconds, other.slowest_seconds)
        return Summary(self.outcomes + other.outcomes, self.wrong + other.wrong, slowest)

    def __str__(self) -> str:
        lines = [f"{self.outcomes.total()} mutants", *(f"{name}: {n}" for name, n in self.outcomes.most_common())]
        lines += [f"crashes, hangs over {HANG_SECONDS:.0f} s, unfit for a model: {len(self.wrong)} {self.wrong[:9]}"]
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
        end = min(len(data), 128) if rng.random() < 0.5 else len(data)  # the header, where it does most, or anywhere
        at = int(rng.integers(end)) if end else 0
        n_bytes, new = MUTATIONS[rng.integers(len(MUTATIONS))](data, at, rng)
        data[at : at + n_bytes] = new
    if data[:4] == b"OggS" and rng.random() < 0.7:
        return _resealed(bytes(data))  # past the checksum, to the decoder
    return bytes(data)


def _flip(data: bytearray, at: int, rng: np.random.Generator) -> tuple[int, bytes]:
    return 1, bytes(byte ^ 1 << rng.integers(8) for byte in data[at : at + 1])


def _number(data: bytearray, at: int, rng: np.random.Generator) -> tuple[int, bytes]:
    new = struct.pack(rng.choice(("<I", ">I")), int(rng.choice(INTERESTING)))[: int(rng.choice((1, 2, 4)))]
    return len(new), new


def _splice(data: bytearray, at: int, rng: np.random.Generator) -> tuple[int, bytes]:
    return 200, parents()[rng.integers(len(parents()))][at : at + 200]


MUTATIONS = (  # each returns how many bytes are replaced, and by what
    *(_flip, _flip, _number, _number),
    lambda data, at, rng: (32, rng.bytes(32)),
    lambda data, at, rng: (n := int(rng.integers(1, 256)), bytes(n)),
    lambda data, at, rng: (int(rng.integers(1, 64)), b""),
    lambda data, at, rng: (0, data[at : at + int(rng.integers(1, 512))]),
    lambda data, at, rng: (len(data) if rng.random() < 0.2 else 0, b""),
    lambda data, at, rng: _splice(data, at, rng) if rng.random() < 0.2 else (0, b""),
)


def _resealed(data: bytes) -> bytes:
    """Put the checksums of all whole OGG pages right."""
    done = b""
    while data[:4] == b"OggS" and len(data) > 27:
        n_lacing = data[26]
        n_bytes = 27 + n_lacing + sum(data[27 : 27 + n_lacing])
        done, data = done + audio_bytes.sealed(data[:n_bytes]), data[n_bytes:]
    return done + data


def attempt(path: Path) -> tuple[str, str, float]:
    """Load one file: return the outcome, what is wrong with it, and the seconds that it took."""
    start, wrong = time.monotonic(), ""
    try:
        audio.check_waveform(audio.load(path), sample_rate_hz=16_000)
        outcome = "accepted"
    except audio.AudioError as error:
        outcome = type(error).__name__
        wrong = "" if error.where else f"unfit: {error}"  # errors of a file name it, those of a waveform do not
    except Exception as error:  # noqa: BLE001 - this is what is being looked for
        outcome, wrong = "uncaught", repr(error)
    seconds = time.monotonic() - start
    return outcome, wrong or "hang" * (seconds > HANG_SECONDS), seconds


def fuzz(seed: int, numbers: range) -> Summary:
    """Try the mutants of these numbers; what seems to hang is tried once more, as a busy machine may halt anything."""
    summary = Summary()
    with tempfile.TemporaryDirectory() as root:
        for number in numbers:
            path = Path(root, "mutant")
            path.write_bytes(mutant(seed, number))
            outcome, wrong, seconds = attempt(path)
            if wrong == "hang":
                outcome, wrong, seconds = attempt(path)
            summary += Summary(Counter([outcome]), [f"{number}: {wrong}"] if wrong else [], seconds)
    return summary


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    start, total = time.monotonic(), Summary()
    blocks = [range(first, min(first + 1000, arguments.mutants)) for first in range(0, arguments.mutants, 1000)]
    with ProcessPoolExecutor(N_PROCESSES, mp_context=get_context("spawn")) as pool:
        for part in pool.map(fuzz, [arguments.seed] * len(blocks), blocks):
            total += part
            print(f"{total.outcomes.total()} mutants", file=sys.stderr, flush=True)  # noqa: T201
    print(f"{total}\n{time.monotonic() - start:.0f} s in {N_PROCESSES} processes")  # noqa: T201
    sys.exit(bool(total.wrong))


if __name__ == "__main__":
    main()
