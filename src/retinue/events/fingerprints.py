"""The fingerprint of an input: changes when the files, their content or the options of reading change."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from retinue.events.sources import paths_of
from retinue.options import DataOptions
from retinue.schema import SCHEMA_VERSION, InputError

# raised by hand when the same input would give another store
PREPARE_VERSION = 2
_WHOLE_BYTES = 4 << 20
_END_BYTES = 1 << 20


def fingerprint(options: DataOptions, shards: int = 0) -> str:
    """64 hex digits over options, secret and each file's path, size, time and content (large files: both ends).

    Raises:
        InputError: a file is missing, or the secret is not set.
    """
    digest = hashlib.sha256()
    told: dict[str, Any] = {"schema": SCHEMA_VERSION, "prepare": PREPARE_VERSION, "shards": shards}
    digest.update(json.dumps([told, asdict(options)], sort_keys=True, default=_plain).encode())
    secret = secret_of(options)
    if secret is not None:
        digest.update(hashlib.sha256(b"retinue fingerprint" + secret).digest())
    for path in paths_of(options):
        about = path.stat()
        digest.update(f"\0{path.resolve()}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
        digest.update(_content(path, about.st_size))
    return digest.hexdigest()


def secret_of(options: DataOptions) -> bytes | None:
    """The pseudonym secret from the named environment variable, or None where none is asked for."""
    if options.pseudonym_key is None:
        return None
    secret = os.environ.get(options.pseudonym_key, "")
    if not secret:
        raise InputError(
            f"data.pseudonym_key={options.pseudonym_key}: there is no such environment variable, or it is empty. "
            f"Set {options.pseudonym_key} to a long secret before the run."
        )
    return secret.encode()


def _content(path: Path, size: int) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            digest.update(file.read())
        else:
            digest.update(file.read(_END_BYTES))
            file.seek(-_END_BYTES, 2)
            digest.update(file.read(_END_BYTES))
    return digest.digest()


def _plain(value: Any) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)
