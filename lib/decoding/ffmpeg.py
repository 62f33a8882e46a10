"""Decode with an ffmpeg process: for containers that libsndfile does not know. Bounded in time, memory and output."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np

from lib.decoding.audio_errors import DamagedAudio, DecodeTimeout, UnsupportedFormat

MEMORY_BYTES = 2**31
AU_HEADER_BYTES = 24


@lru_cache(maxsize=1)
def ffmpeg_path() -> str | None:
    """Return the ffmpeg that imageio-ffmpeg brings, whose version is known; else one on PATH, else None."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


def decode(
    path: Path, demuxer: str, *, max_seconds: float, max_bytes: int, cpu_seconds: float, wall_seconds: float
) -> tuple[np.ndarray, float]:
    """Decode the first sound track.

    Parameters
    ----------
    path : Path
        Recording.
    demuxer : str
        The one container ffmpeg may take it for: left to guess, a playlist could make it open other files.
    max_seconds, max_bytes : float, int
        Where to stop decoding.
    cpu_seconds, wall_seconds : float
        When to give up.

    Returns
    -------
    samples : ndarray of float32, shape (n_samples, n_channels)
    sample_rate_hz : float
        The decoder's rate, which may be twice the header's (SBR).

    Raises
    ------
    UnsupportedFormat, DecodeTimeout, DamagedAudio
        No ffmpeg; too slow; ffmpeg fails, crashes or so much as complains.
    """
    program = ffmpeg_path()
    if program is None:
        raise UnsupportedFormat("it needs ffmpeg, which is not installed (try: pip install imageio-ffmpeg)", path)
    command = [program, "-v", "error", "-nostdin", "-threads", "1", "-protocol_whitelist", "file,pipe"]
    command += ["-f", demuxer, "-i", f"file:{path.absolute()}", "-map", "0:a:0", "-t", f"{max_seconds:.3f}"]
    command += ["-fs", str(max_bytes + AU_HEADER_BYTES), "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    data, complaint, code = _run(command, path, cpu_seconds=cpu_seconds, wall_seconds=wall_seconds)
    if code == -signal.SIGXCPU:
        raise DecodeTimeout(f"ffmpeg spent more than {cpu_seconds:.1f} s on it", path)
    if code or complaint:
        lines = complaint.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
        raise DamagedAudio(f"ffmpeg cannot decode it ({ascii(lines[0])[1:-1]})", path)
    return _read_au(data, path)


def _run(command: list[str], path: Path, *, cpu_seconds: float, wall_seconds: float) -> tuple[bytes, bytes, int]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _limit(process.pid, cpu_seconds)
        try:
            data, complaint = process.communicate(timeout=wall_seconds)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise DecodeTimeout(f"ffmpeg has not finished it after {wall_seconds:.0f} s", path) from error
        except BaseException:
            process.kill()
            raise
    return data, complaint, process.returncode


def _limit(process_id: int, cpu_seconds: float) -> None:
    if hasattr(resource, "prlimit"):  # Linux; elsewhere the clock alone guards it
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process_id, resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 2))
            resource.prlimit(process_id, resource.RLIMIT_AS, (MEMORY_BYTES,) * 2)


def _read_au(data: bytes, path: Path) -> tuple[np.ndarray, float]:
    """Read the Sun AU that ffmpeg wrote: of all containers the simplest that gives the true rate and channel count."""
    if len(data) < AU_HEADER_BYTES or data[:4] != b".snd":
        raise DamagedAudio("ffmpeg finds no sound in it", path)
    offset, _, _, rate_hz, channels = np.frombuffer(data, ">u4", count=5, offset=4).tolist()
    n_frames = (len(data) - offset) // (4 * channels)
    samples = np.frombuffer(data, ">f4", count=n_frames * channels, offset=offset)
    return samples.astype(np.float32).reshape(n_frames, channels), rate_hz
