"""Finds and opens raw tables (text, Excel, Parquet, JSON lines) as text-safe lazy frames that know their row numbers."""

from __future__ import annotations

import difflib
import glob
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from retinue.events.clock import in_range
from retinue.events.text_files import PROBLEM, as_plain_lines, plain_text, unpacked
from retinue.schema import InputError, shown

ROW_NUMBER = "__row__"
BATCH_CELLS = 4_000_000
_PACKED = ("", ".gz", ".zip", ".zst")
_TEXT = (".csv", ".tsv", ".txt")
_EXCEL = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
_PARQUET = (".parquet", ".pq")
_JSON = (".jsonl", ".ndjson", ".json")
# what Polars ends in on a damaged file; its reader of Parquet panics on some
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
# what a mapped column may not be, in Polars' words
_NO_CELL = (pl.List, pl.Array, pl.Struct, pl.Binary, pl.Duration, pl.Time, pl.Object)


@dataclass(frozen=True)
class RawTable:
    """One raw table: `frame` carries ROW_NUMBER beside its own columns; `rows` is an estimate for text files.

    A PROBLEM column says of rows that could not be read what is wrong with them. `notes` says how the file was read.
    """

    label: str
    frame: pl.LazyFrame
    columns: tuple[str, ...]
    rows: int
    notes: tuple[str, ...] = ()
    separator: str | None = None
    keeps_empty_rows: bool = False

    def batches(self) -> Iterator[pl.DataFrame]:
        """The rows in order, in pieces of bounded size; empty lines of a text file are left out.

        Raises:
            InputError: the file breaks off or does not parse.
        """
        size = max(10_000, min(500_000, BATCH_CELLS // len(self.columns)))
        try:
            for batch in self.frame.collect_batches(chunk_size=size, maintain_order=True):
                yield batch if self.keeps_empty_rows else _filled(batch, self.columns)
        except BROKEN as error:
            raise unreadable(self.label, error) from error


def _filled(batch: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    # a row is empty only where its first cell is, which most are not: the others need no look at all columns
    doubtful = batch[columns[0]].is_null()
    if not doubtful.any():
        return batch
    filled = batch.filter(doubtful).select(~pl.all_horizontal(pl.col(columns).is_null())).to_series()
    return batch.filter(doubtful.scatter(doubtful.arg_true(), ~filled).not_())


def unreadable(label: str, error: BaseException) -> InputError:
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
            f"{key}={text}: no such file. Give a CSV, Excel, Parquet or JSON lines file, a glob or a folder."
        )
    return found


def _suffix(path: Path) -> str:
    if path.name.startswith((".", "_")):
        return ""
    name = path.name.lower()
    for packed in _PACKED[1:]:
        if name.endswith(packed):
            name = name.removesuffix(packed)
            break
    return next((end for end in _TEXT + _EXCEL + _PARQUET + _JSON if name.endswith(end)), "")


def open_table(path: Path, separator: str | None, work: Path, encoding: str | None = None) -> RawTable:
    """Opens one file by its ending; a text file that is not plain is copied to one that is.

    Args:
        path: of the file.
        separator: of the fields of a text file; None = found.
        work: folder for copies.
        encoding: of a text file; None = found.

    Raises:
        InputError: unknown ending, empty, header broken, truncated, not readable.
    """
    suffix = _suffix(path)
    if not suffix:
        raise InputError(
            f"{path.name}: the ending says nothing; we read .csv, .tsv, .txt, .xlsx, .parquet, .jsonl, and each of them as "
            ".gz, .zip or .zst. Rename it."
        )
    try:
        if path.stat().st_size == 0:
            raise InputError(
                f"{path.name}: is empty (0 bytes). Export it again, or leave it out of data.path."
            )
        if suffix in _EXCEL:
            return _open_excel(path, work)
        plain, _ = (path, None) if suffix in _PARQUET else unpacked(path, work)
        if plain.stat().st_size == 0:
            raise InputError(f"{path.name}: holds nothing. Export it again, or leave it out of data.path.")
        if suffix in _PARQUET:
            return _open_parquet(path)
        if suffix in _JSON:
            return _open_json(plain, path.name, encoding, work)
        return _open_text(plain, path.name, separator, encoding, work)
    except PermissionError as error:
        raise InputError(
            f"{path.name}: may not be read ({error.strerror}). Give yourself the right to read it."
        ) from error
    except BROKEN as error:
        raise unreadable(path.name, error) from error


def _open_parquet(path: Path) -> RawTable:
    frame = pl.scan_parquet(path)
    columns = tuple(frame.collect_schema().names())
    if not columns:
        raise InputError(f"{path.name}: has no columns. Export it again.")
    schema = frame.collect_schema()
    moments = [name for name, dtype in schema.items() if isinstance(dtype, (pl.Date, pl.Datetime))]
    frame = frame.with_columns(in_range(pl.col(name), schema[name]) for name in moments)
    rows = frame.select(pl.len()).collect().item()
    return RawTable(path.name, frame.with_row_index(ROW_NUMBER, 1), columns, rows, keeps_empty_rows=True)


def _open_text(path: Path, label: str, separator: str | None, encoding: str | None, work: Path) -> RawTable:
    plain = plain_text(path, label, separator, encoding, work)
    numbered = plain.first_row is None
    names = (ROW_NUMBER, PROBLEM, *plain.columns) if numbered else plain.columns
    frame = pl.scan_csv(
        plain.path,
        separator=plain.separator,
        has_header=False,
        skip_lines=0 if plain.first_row is None else plain.first_row - 1,
        schema=dict.fromkeys(names, pl.String()),
        row_index_name=None if numbered else ROW_NUMBER,
        row_index_offset=plain.first_row or 0,
        encoding="utf8",
        raise_if_empty=False,
    )
    if numbered:
        frame = frame.with_columns(pl.col(ROW_NUMBER).cast(pl.UInt32))
    with plain.path.open("rb") as file:
        head = file.read(1 << 20)
    rows = int(plain.path.stat().st_size / max(len(head), 1) * max(head.count(b"\n"), 1))
    return RawTable(label, frame, plain.columns, rows, plain.notes, plain.separator)


def _open_excel(path: Path, work: Path) -> RawTable:
    """The first sheet that holds anything, all its cells as text."""
    packed, _ = (path, None) if path.suffix.lower() in _EXCEL else unpacked(path, work)
    try:
        sheets = pl.read_excel(
            packed, sheet_id=0, engine="calamine", infer_schema_length=0, raise_if_empty=False
        )
    except Exception as error:  # calamine has errors of its own for each kind of damage
        raise unreadable(path.name, error) from error
    filled = [(name, sheet) for name, sheet in sheets.items() if sheet.height]
    if not filled:
        raise InputError(f"{path.name}: no sheet holds rows. Export it again, or leave it out of data.path.")
    name, sheet = filled[0]
    others = f"; {len(filled) - 1} other sheets are not read" if len(filled) > 1 else ""
    frame = sheet.cast(pl.String).lazy().with_row_index(ROW_NUMBER, 2)
    note = f"sheet '{shown(name)}' is read{others}"
    return RawTable(path.name, frame, tuple(sheet.columns), sheet.height, (note,))


def _open_json(path: Path, label: str, encoding: str | None, work: Path) -> RawTable:
    path, notes = as_plain_lines(path, label, encoding, work)
    columns: dict[str, None] = {}
    rows = 0
    with path.open("rb") as file:
        for rows, line in enumerate(file, 1):
            if rows == 1 and line.lstrip()[:1] == b"[":
                raise InputError(
                    f"{label}: holds one JSON array; we read JSON lines, one object a line. Convert it."
                )
            if line.strip():
                columns.update(dict.fromkeys(_keys(line, rows, label)))
    if not columns:
        raise InputError(f"{label}: holds no JSON object. Export it again, or leave it out of data.path.")
    names = tuple(columns)
    frame = pl.scan_ndjson(
        path, schema=dict.fromkeys(names, pl.String()), row_index_name=ROW_NUMBER, row_index_offset=1
    )
    return RawTable(label, frame, names, rows, notes, keeps_empty_rows=True)


def _keys(line: bytes, number: int, label: str) -> list[str]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label}: line {number} is not JSON ({error}). Repair or remove it.") from error
    if not isinstance(found, dict):
        raise InputError(f"{label}: line {number} is not a JSON object. Write one object a line.")
    return list(found)


def check_cells(table: RawTable, names: dict[str, str]) -> None:
    """Checks that the columns given for ours hold single values.

    Args:
        table: the raw table.
        names: the user's column of each of ours.

    Raises:
        InputError: a list, struct, duration or binary column; the message names column, type and cure.
    """
    schema = table.frame.collect_schema()
    for ours, theirs in names.items():
        dtype = schema[theirs]
        if isinstance(dtype, _NO_CELL):
            raise InputError(
                f"{table.label}: column '{shown(theirs)}' is of type {dtype} and cannot be {ours}: one plain value a row is "
                f"needed. Write it as {_PLAIN_TYPE.get(ours, 'text')}, or set data.columns.{ours} to another column."
            )


_PLAIN_TYPE = {
    "amount": "a number", "discount": "a number", "cost": "a number", "quantity": "a number", "severity": "a number",
    "sentiment": "a number", "rating": "a number", "event_time": "a date or time", "known_time": "a date or time",
}  # fmt: skip


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence with the closest name, or nothing."""
    near = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f" Did you mean '{shown(near[0])}'?" if near else ""
