"""Small audio files and an index of them, for tests of acquisition."""

import hashlib
import io
import tarfile
import zipfile

import numpy as np
import pandas as pd
import soundfile

SOURCES = ("donateacry", "ladytuna", "emodb")  # one a class


def wav_bytes(seed, *, seconds=1.0, rate_hz=16_000, format="WAV"):
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * rng.standard_normal(round(seconds * rate_hz)), rate_hz, format=format)
    return buffer.getvalue()


def small_index(n_groups=4):
    """Return an index like clips.csv with `n_groups` recordings a class, and their bytes by source and path."""
    rows, contents = [], {}
    for label, source in zip(("crying", "screaming", "normal"), SOURCES, strict=True):
        for group in range(n_groups):
            content = wav_bytes([len(contents), 1])
            path = f"a b/{label} [{group}].wav"
            sha256 = hashlib.sha256(content).hexdigest()
            contents[source, path] = content
            rows.append({
                "clip_id": f"{source}-{sha256[:12]}", "source": source, "path": path, "sha256": sha256,
                "bytes": len(content), "label": label, "subtype": "x", "group_id": f"{label}:{group}",
                "duration_seconds": 1.0, "sample_rate_hz": 16000, "channels": 1, "bandwidth_hz": 7900, "licence": "CC0",
            })  # fmt: skip
    return pd.DataFrame(rows), contents


def write_mirror(folder, files):
    """Write bytes by path below a folder and return it."""
    for remote, content in files.items():
        (folder / remote).parent.mkdir(parents=True, exist_ok=True)
        (folder / remote).write_bytes(content)
    return folder


def zip_of(*entries):
    """Return a zip file of (name, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def tar_of(*entries):
    """Return a tar file of (name, content), or (name, content, fields of its TarInfo)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content, *fields in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in dict(*fields).items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
