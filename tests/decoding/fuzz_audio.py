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
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # as a program it is a module of another folder

import numpy as np  # noqa: E402
from audio_bytes import FLOATS, PCM, aiff, by_av, caf, encoded, extensible, sealed, wav  # noqa: E402

from lib import audio  # noqa: E402

HANG_SECONDS = 2.0
N_PROCESSES = 2
INTERESTING = (0, 1, 2, 3, 16, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@lru_cache(maxsize=1)
def parents() -> list[bytes]:
    """Return short good files, one for each container and codec."""
    floats, short = FLOATS[:19_200], {"seconds": 0.3}
    return [
        *(wav(PCM[:9_600]), wav(PCM[:9_600], channels=2), wav(floats, tag=3, bits=32)),
        wav(floats, tag=0xFFFE, bits=32, tail=extensible(3, valid_bits=32)),
        *(aiff(n_frames=4_800), caf(PCM[:9_600])),
        *(encoded("WAV", codec, 0.3) for codec in ("ULAW", "PCM_24", "MS_ADPCM", "IMA_ADPCM", "GSM610")),
        *(encoded("FLAC", codec, 0.3) for codec in ("PCM_16", "PCM_24")),
        *(encoded("OGG", codec, 0.3) for codec in ("VORBIS", "OPUS") for _ in range(2)),
        *(encoded("MP3", "MPEG_LAYER_III", seconds) for seconds in (0.3, 0.6)),
        encoded("AIFF", "IMA_ADPCM", 0.3),
        *(by_av("caf", "adpcm_ima_qt", **short), by_av("ipod", "aac", **short)),
        *(by_av(container, "libopencore_amrnb", 8_000, **short) for container in ("3gp", "amr")),
        by_av("webm", "libopus", 48_000, **short),
        *(by_av(container, "aac", film=True, **short) for container in ("mp4", "mpegts")),
        by_av("asf", "wmav2", 44_100, bit_rate=64_000, **short),
        by_av("avi", "libmp3lame", 44_100, film=True, **short),
        *(by_av("wv", "wavpack", **short), by_av("tta", "tta", **short)),
        *(by_av("adts", "aac", **short), by_av("ac3", "ac3", 48_000, **short)),
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
        done, data = done + sealed(data[:n_bytes]), data[n_bytes:]
    return done + data


def attempt(path: Path) -> tuple[str, str]:
    """Load one file: return "accepted" or the error's name, and what is wrong with that."""
    start, wrong = time.monotonic(), ""
    try:
        audio.check_waveform(audio.load(path), sample_rate_hz=16_000)
        outcome = "accepted"
    except audio.AudioError as error:
        outcome = type(error).__name__
        wrong = "" if error.where else f"unfit: {error}"  # errors of a file name it, those of a waveform do not
    except Exception as error:  # noqa: BLE001 - this is what is being looked for
        outcome, wrong = "uncaught", repr(error)
    return outcome, wrong or "hang" * (time.monotonic() - start > HANG_SECONDS)


def fuzz(seed: int, numbers: range) -> tuple[Counter, list[str]]:
    """Try the mutants of these numbers: return the counts by outcome, and those that went wrong.

    Wrong are hangs, uncaught errors, and what is accepted and unfit for a model. What seems to hang is tried once more,
    as a busy machine may halt anything.
    """
    outcomes, faults = Counter(), []
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, "mutant")
        for number in numbers:
            path.write_bytes(mutant(seed, number))
            outcome, wrong = attempt(path)
            if wrong == "hang":
                outcome, wrong = attempt(path)
            outcomes[outcome] += 1
            faults += [f"{number}: {wrong}"] if wrong else []
    return outcomes, faults


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    outcomes, faults = Counter(), []
    blocks = [range(first, min(first + 1000, arguments.mutants)) for first in range(0, arguments.mutants, 1000)]
    with ProcessPoolExecutor(N_PROCESSES, mp_context=get_context("spawn")) as pool:
        for counts, wrong in pool.map(fuzz, [arguments.seed] * len(blocks), blocks):
            outcomes, faults = outcomes + counts, faults + wrong
            print(f"{outcomes.total()} mutants", file=sys.stderr, flush=True)  # noqa: T201
    print(*(f"{name}: {n}" for name, n in outcomes.most_common()), sep="\n")  # noqa: T201
    print(f"uncaught errors, hangs over {HANG_SECONDS:.0f} s, unfit for a model: {len(faults)} {faults[:9]}")  # noqa: T201
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
