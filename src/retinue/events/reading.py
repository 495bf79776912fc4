"""Finds and opens raw tables (CSV, Parquet, JSON lines) as text-safe lazy frames that know their row numbers."""

from __future__ import annotations

import csv
import difflib
import glob
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from retinue.schema import InputError

ROW_NUMBER = "__row__"
BATCH_CELLS = 4_000_000
_TEXT = (".csv", ".tsv", ".txt", ".csv.gz")
_PARQUET = (".parquet", ".pq")
_JSON = (".jsonl", ".ndjson", ".json")
_SEPARATORS = ",;\t|"
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class RawTable:
    """One raw table: `frame` carries ROW_NUMBER beside its own columns; `rows` is an estimate for text files."""

    label: str
    frame: pl.LazyFrame
    columns: tuple[str, ...]
    rows: int

    def batches(self) -> Iterator[pl.DataFrame]:
        """The rows in order, in pieces of bounded size; wholly empty lines are left out.

        Raises:
            InputError: the file breaks off or does not parse.
        """
        size = max(10_000, min(500_000, BATCH_CELLS // len(self.columns)))
        filled = ~pl.all_horizontal(pl.col(self.columns).is_null())
        try:
            for batch in self.frame.collect_batches(chunk_size=size, maintain_order=True):
                yield batch.filter(filled)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable(self.label, error) from error


def unreadable(label: str, error: Exception) -> InputError:
    """The one line for a file that the reader gave up on."""
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InputError(f"{label}: cannot be read to its end ({why}). Export the file again, or repair it.")


def find_files(text: str, key: str) -> list[Path]:
    """Files meant by a file, glob or folder, sorted by name.

    Raises:
        InputError: nothing is there, or nothing of a format that we read.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [item for item in sorted(path.iterdir()) if item.is_file() and _suffix(item)]
    else:
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
    if not found:
        raise InputError(
            f"{key}={text}: no such file. Give a CSV, Parquet or JSON lines file, a glob or a folder."
        )
    return found


def _suffix(path: Path) -> str:
    if path.name.startswith((".", "_")):
        return ""
    return next((end for end in _TEXT + _PARQUET + _JSON if path.name.lower().endswith(end)), "")


def open_table(path: Path, separator: str | None) -> RawTable:
    """Opens one file by its ending; nothing but its head and footer is read yet.

    Raises:
        InputError: unknown ending, empty, header broken, truncated.
    """
    suffix = _suffix(path)
    if not suffix:
        raise InputError(
            f"{path.name}: the ending says nothing; we read .csv, .tsv, .txt, .parquet, .jsonl. Rename it."
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path.name}: is empty (0 bytes). Export it again, or leave it out of data.path.")
    try:
        if suffix in _PARQUET:
            return _open_parquet(path)
        return _open_json(path) if suffix in _JSON else _open_text(path, separator)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path.name, error) from error


def _open_parquet(path: Path) -> RawTable:
    frame = pl.scan_parquet(path)
    columns = tuple(frame.collect_schema().names())
    rows = frame.select(pl.len()).collect().item()
    return RawTable(path.name, frame.with_row_index(ROW_NUMBER, 1), columns, rows)


def _open_text(path: Path, separator: str | None) -> RawTable:
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    if path.name.lower().endswith(".gz"):
        first = pl.read_csv(path, has_header=False, infer_schema=False, n_rows=1, separator="\x1f").item()
        rows = 8 * path.stat().st_size // max(len(str(first)), 8)
    else:
        first = _decoded(head.split(b"\n", 1)[0], path).lstrip("\ufeff").rstrip("\r")
        rows = int(path.stat().st_size / len(head) * max(head.count(b"\n") - 1, 1))
    mark = separator or max(_SEPARATORS, key=first.count)
    columns = next(csv.reader([first], delimiter=mark), [])
    _check_unique(columns, path.name)
    frame = pl.scan_csv(
        path,
        separator=mark,
        infer_schema=False,
        row_index_name=ROW_NUMBER,
        row_index_offset=2,
        encoding="utf8",
    )
    return RawTable(path.name, frame, tuple(columns), rows)


def _decoded(line: bytes, path: Path) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: the header is not UTF-8 text. Export it again as UTF-8.") from error


def _check_unique(columns: list[str], label: str) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        count = columns.count(twice[0])
        raise InputError(
            f"{label}: column '{twice[0]}' stands {count} times in the header. Rename or remove all but one."
        )


def _open_json(path: Path) -> RawTable:
    columns: dict[str, None] = {}
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    if head.lstrip()[:1] == b"[":
        raise InputError(
            f"{path.name}: holds one JSON array; we read JSON lines, one object a line. Convert it."
        )
    whole = head.split(b"\n") if len(head) < _SAMPLE_BYTES else head.split(b"\n")[:-1]
    for number, line in enumerate(whole, 1):
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=list)
        except ValueError as error:
            raise InputError(
                f"{path.name}: line {number} is not JSON ({error}). Repair or remove it."
            ) from error
        if not isinstance(pairs, list) or not line.lstrip().startswith(b"{"):
            raise InputError(f"{path.name}: line {number} is not a JSON object. Write one object a line.")
        columns.update(dict.fromkeys(name for name, _ in pairs))
    rows = int(path.stat().st_size / len(head) * max(len(whole), 1))
    names = tuple(columns)
    frame = pl.scan_ndjson(
        path, schema=dict.fromkeys(names, pl.String()), row_index_name=ROW_NUMBER, row_index_offset=1
    )
    return RawTable(path.name, frame, names, rows)


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence with the closest name, or nothing."""
    near = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
