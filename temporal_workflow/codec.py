"""What happens to every message on its way to Temporal: short JSON, a guard on its size, AES-256-GCM by choice."""

from __future__ import annotations

import argparse
import base64
import binascii
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    AdvancedJSONEncoder,
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadCodec,
)

from temporal_workflow import shared

ENCODING = b"binary/aes-256-gcm"
KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D, section 8.2: 96-bit nonces


class KeyFileError(ValueError):
    """The encryption key is missing or unusable."""


class OversizedMessage(ValueError):  # noqa: N818 - named for what is wrong
    """A message is larger than the service allows; audio must travel by reference."""


class Codec(PayloadCodec):
    """Encrypts every payload with AES-256-GCM where there is a key of 32 bytes; an altered one does not decrypt.

    Payloads over `MAX_MESSAGE_BYTES` are refused before they reach Temporal, where they would block a workflow.
    """

    def __init__(self, key: bytes | None) -> None:
        self._cipher = AESGCM(key) if key else None

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return what is sent; `OversizedMessage` is raised for payloads over the limit."""
        sent = [self._encrypt(payload) for payload in payloads]
        if (size := max((payload.ByteSize() for payload in sent), default=0)) > shared.MAX_MESSAGE_BYTES:
            raise OversizedMessage(
                f"a message of {size} bytes is over {shared.MAX_MESSAGE_BYTES}: send references, not data."
            )
        return sent

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return readable payloads; those written before encryption was switched on pass as they are."""
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        if not self._cipher:
            return payload
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, payload.SerializeToString(), ENCODING)
        return Payload(metadata={"encoding": ENCODING}, data=sealed)

    def _decrypt(self, payload: Payload) -> Payload:
        if not self._cipher or payload.metadata.get("encoding") != ENCODING:
            return payload
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            return Payload.FromString(self._cipher.decrypt(nonce, sealed, ENCODING))
        except InvalidTag:
            raise KeyFileError("a message does not decrypt: this process and its sender have different keys.") from None


class WithoutDefaults(AdvancedJSONEncoder):
    """Writes messages without the fields that have their default: whoever reads them fills these in."""

    def default(self, o: Any) -> Any:
        """Return what JSON can hold."""
        if not dataclasses.is_dataclass(o) or isinstance(o, type):
            return super().default(o)
        return {f.name: value for f in dataclasses.fields(o) if (value := getattr(o, f.name)) != _default_of(f)}


def _default_of(given: dataclasses.Field) -> Any:
    return given.default if given.default_factory is dataclasses.MISSING else given.default_factory()


class ShortPayloadConverter(CompositePayloadConverter):
    """Temporal's own converter, with JSON as `WithoutDefaults` writes it."""

    def __init__(self) -> None:
        usual = DefaultPayloadConverter.default_encoding_payload_converters
        json = JSONPlainPayloadConverter(encoder=WithoutDefaults)
        super().__init__(*(json if isinstance(each, JSONPlainPayloadConverter) else each for each in usual))


def data_converter(key: bytes | None) -> DataConverter:
    """Return the converter for clients and workers: short JSON, size guard always, encryption if there is a key."""
    return DataConverter(
        payload_converter_class=ShortPayloadConverter,
        payload_codec=Codec(key),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes if key else DefaultFailureConverter,
    )


def read_key(*, file: Path | None, text: str | None) -> bytes | None:
    """Return the key from a file or from text, both base64 of 32 bytes; None where neither is given.

    Raises
    ------
    KeyFileError
        If the key is not base64 of 32 bytes, or others may read the file.
    """
    if file is not None:
        if not file.is_file():
            raise KeyFileError(f"{file} does not exist: make a key with `python -m temporal_workflow.codec {file}`.")
        if file.stat().st_mode & 0o077:
            raise KeyFileError(f"{file} can be read by others: chmod 600 {file}.")
        text = file.read_text(encoding="ascii", errors="replace")
    if not text:
        return None
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyFileError(
            "the key is not base64 of 32 bytes: make one with `python -m temporal_workflow.codec KEYFILE`."
        )
    return key


def write_key(path: Path) -> None:
    """Write a new random key to `path`, readable by its owner alone; an existing file is never overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m temporal_workflow.codec", description=write_key.__doc__)
    parser.add_argument("keyfile", type=Path)
    write_key(parser.parse_args().keyfile)
