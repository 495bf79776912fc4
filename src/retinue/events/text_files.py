"""Text tables as shops export them, made plain: one encoding, one line end, one row a line, every line accounted for."""

from __future__ import annotations

import codecs
import csv
import gzip
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from retinue.schema import InputError, shown

SEPARATORS = ",;\t|"
PROBLEM = "__problem__"
_CHUNK_BYTES = 1 << 24
_SAMPLE_BYTES = 1 << 20
_MOST_LINES_OF_A_CELL = 200
_MOST_BYTES_OF_A_LINE = 1 << 26
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP, _ZIP, _ZSTD = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class PlainText:
    """A text table that Polars reads as it stands.

    Attributes:
        path: The file itself, or a plain copy of it.
        separator: Of fields.
        columns: Names in the header, those without one named by their place.
        first_row: Line of the first row in the user's file; None where the copy has a column of line numbers.
        notes: What was found and repaired, as sentences.
    """

    path: Path
    separator: str
    columns: tuple[str, ...]
    first_row: int | None
    notes: tuple[str, ...]


def unpacked(path: Path, work: Path) -> tuple[Path, str | None]:
    """The file, or what a gzip, zip or zstd file holds as a copy in `work`; and how it was packed.

    Raises:
        InputError: damaged, or a zip of several files.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    kind = next(
        (
            name
            for start, name in ((_GZIP, "gzip"), (_ZIP, "zip"), (_ZSTD, "zstd"))
            if magic.startswith(start)
        ),
        None,
    )
    if kind is None:
        return path, None
    target = _copy_in(work, "unpacked")
    try:
        with _opened(path, kind) as packed, target.open("wb") as out:
            if kind == "zstd":
                out.writelines(_zstd_chunks(packed))
            else:
                shutil.copyfileobj(packed, out, _CHUNK_BYTES)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, _zstd_error()) as error:
        raise InputError(f"{path.name}: the {kind} file is damaged ({error}). Export it again.") from error
    return target, kind


def _opened(path: Path, kind: str) -> Any:
    if kind == "gzip":
        return gzip.open(path, "rb")
    if kind == "zstd":
        return path.open("rb")
    archive = zipfile.ZipFile(path)
    members = [
        item for item in archive.infolist() if not item.is_dir() and not item.filename.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        raise InputError(
            f"{path.name}: the zip file holds {len(members)} files, not one table. Unpack it and give the folder, or the "
            "one file, in data.path."
        )
    return archive.open(members[0])


def _zstd_chunks(packed: IO[bytes]) -> Iterator[bytes]:
    """What the frames of a zstd file hold; a frame that breaks off is an error, which a reader of zstandard's is silent on."""
    import zstandard  # noqa: PLC0415

    rest, frame = b"", None
    while (chunk := rest or packed.read(_SAMPLE_BYTES)) or frame is not None:
        if not chunk:
            raise EOFError("it breaks off")
        frame = frame or zstandard.ZstdDecompressor().decompressobj()
        yield frame.decompress(chunk)
        rest = frame.unused_data
        frame = None if frame.eof else frame


def _zstd_error() -> type[Exception]:
    import zstandard  # noqa: PLC0415

    return zstandard.ZstdError


def plain_text(path: Path, label: str, separator: str | None, encoding: str | None, work: Path) -> PlainText:
    """The text table in a form that Polars reads row by row: the file itself where it is plain, else a copy in `work`.

    Args:
        path: of the file.
        label: its name in messages.
        separator: of fields; None = the commonest in the header.
        encoding: of the file; None = found.
        work: folder for the copy.

    Raises:
        InputError: not text, or the header is broken.
    """
    notes: list[str] = []
    found, is_plain = _encoding_of(path, label, encoding)
    if found != "utf-8" or not is_plain:
        if found not in ("utf-8", "utf-8-sig"):
            notes.append(f"read as {found}{'' if encoding else ', found from its bytes'}")
        path = _as_utf8(path, label, found, _copy_in(work, "utf8"))
    with path.open(encoding="utf-8", newline="\n") as file:
        skipped, header = _header_line(file, label)
        blank = next((number for number, line in enumerate(file) if line.strip()), 0)
    if skipped and separator is None and header[1]:
        separator = header[1]
        notes.append(f"its first line says that fields end in '{separator}'")
    mark = separator or max(SEPARATORS, key=header[0].count)
    # a carriage return inside a line ends no line, and csv would stumble over it
    columns = _columns(next(csv.reader([header[0].replace("\r", " ")], delimiter=mark), []), label)
    if _is_regular(path, skipped + 1, mark, len(columns)):
        return PlainText(path, mark, columns, skipped + 2 + blank, tuple(notes))
    repaired = _copy_in(work, "rows")
    notes += _repaired(path, repaired, mark, columns, skipped + 1)
    return PlainText(repaired, mark, columns, None, tuple(notes))


def as_plain_lines(path: Path, label: str, encoding: str | None, work: Path) -> tuple[Path, tuple[str, ...]]:
    """A file of lines in UTF-8 with LF ends, itself or as a copy in `work`; and what was found, as sentences."""
    found, is_plain = _encoding_of(path, label, encoding)
    if found == "utf-8" and is_plain:
        return path, ()
    copy = _as_utf8(path, label, found, _copy_in(work, "utf8"))
    return copy, () if found in ("utf-8", "utf-8-sig") else (f"read as {found}",)


def _copy_in(work: Path, what: str) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    place = len(list(work.iterdir()))
    return work / f"{place:06d}-{what}"


def _encoding_of(path: Path, label: str, given: str | None) -> tuple[str, bool]:
    """The encoding, and whether lines end in LF (or CRLF) and nothing stands before the header."""
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    lone_cr = b"\n" not in head and b"\r" in head
    if given is not None:
        return given, given == "utf-8" and not lone_cr
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name, False
    zeros = np.frombuffer(head, np.uint8) == 0
    if zeros.any():
        even, odd = float(zeros[::2].mean()), float(zeros[1::2].mean())
        if max(even, odd) < 0.25 or min(even, odd) > 0.1:
            raise InputError(
                f"{label}: is not text (it holds zero bytes). Export it as CSV, Parquet, JSON lines or .xlsx."
            )
        return ("utf-16-le" if odd > even else "utf-16-be"), False
    return ("utf-8", not lone_cr) if _is_utf8(path) else ("cp1252", False)


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _as_utf8(path: Path, label: str, encoding: str, target: Path) -> Path:
    """A copy in UTF-8 with LF line ends; cp1252's five undefined bytes become U+FFFD."""
    try:
        errors = "replace" if encoding == "cp1252" else "strict"
        with (
            path.open(encoding=encoding, errors=errors, newline=None) as source,
            target.open("w", encoding="utf-8", newline="\n") as out,
        ):
            while chunk := source.read(_CHUNK_BYTES):
                out.write(chunk)
    except (UnicodeError, LookupError) as error:
        raise InputError(
            f"{label}: is not text in {encoding} ({error}). Set data.encoding to another, such as cp1252 or utf-16."
        ) from error
    return target


def _header_line(file: IO[str], label: str) -> tuple[int, tuple[str, str]]:
    """How many lines stand before the header, and the header with the separator that a `sep=` line names."""
    named = ""
    for number in range(100):
        line = file.readline(_MOST_BYTES_OF_A_LINE)
        if not line:
            break
        text = line.rstrip("\r\n").lstrip("\ufeff")
        if number == 0 and text.lower().startswith("sep=") and len(text) in (5, 6):
            named = text[4:].replace("\\t", "\t")[:1]
        elif text.strip():
            return number, (text, named)
    raise InputError(f"{label}: has no header line. Export it again with the names of its columns.")


def _columns(names: list[str], label: str) -> tuple[str, ...]:
    """The names, those without one named by their place, none twice."""
    full = tuple(name.strip() or f"column {place}" for place, name in enumerate(names, 1))
    seen: set[str] = set()
    for name in full:
        if name in seen:
            raise InputError(
                f"{label}: column '{shown(name)}' stands {full.count(name)} times in the header. Rename or remove all but one."
            )
        seen.add(name)
    return full


def _is_regular(path: Path, skip: int, mark: str, fields: int) -> bool:
    """Whether every line after the header is one row with as many fields, its quotes where they belong."""
    with path.open("rb") as file:
        for _ in range(skip):
            file.readline()
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if not newline:
                if len(rest) > _MOST_BYTES_OF_A_LINE:
                    return False
                continue
            if not _are_regular(whole + newline, ord(mark), fields):
                return False
        return not rest or _are_regular(rest + b"\n", ord(mark), fields)


def _are_regular(lines: bytes, mark: int, fields: int) -> bool:
    text = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    begins = np.concatenate([[0], ends[:-1] + 1])
    marks = text == mark
    quotes = text == ord('"')
    if quotes.any():
        marks = _outside(text, quotes, marks, begins, ends, mark)
        if marks is None:
            return False
    counts = np.add.reduceat(marks, begins, dtype=np.int64)
    counts[ends == begins] = fields - 1  # an empty line is no row
    blank = (ends - begins == 1) & (text[np.maximum(ends - 1, 0)] == ord("\r"))
    counts[blank] = fields - 1
    return bool((counts == fields - 1).all())


def _outside(
    text: NDArray[np.uint8],
    quotes: NDArray[np.bool_],
    marks: NDArray[np.bool_],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    mark: int,
) -> NDArray[np.bool_] | None:
    """The separators outside quotes; None where a quote neither opens nor closes a field, or stays open at a line's end."""
    before = np.cumsum(quotes, dtype=np.int32)
    at_begin = before[begins] - quotes[begins]
    inside = (before - np.repeat(at_begin, ends - begins + 1)) % 2 == 1
    if inside[ends].any():
        return None
    at = np.flatnonzero(quotes)
    previous, following = text[np.maximum(at - 1, 0)], text[np.minimum(at + 1, len(text) - 1)]
    edges = (mark, ord("\n"), ord('"'))
    opens, closes = inside[at], ~inside[at]
    good_open = (at == 0) | np.isin(previous, edges)
    good_close = np.isin(following, (*edges, ord("\r")))
    if (opens & ~good_open).any() or (closes & ~good_close).any():
        return None
    return np.asarray(marks & ~inside)


def _repaired(path: Path, target: Path, mark: str, columns: tuple[str, ...], skip: int) -> list[str]:
    """Writes each row with its line number and what is wrong with it; returns what was repaired, as sentences."""
    counts = {"literal": 0, "spanning": 0, "trailing": 0}
    with (
        path.open(encoding="utf-8", newline="\n") as source,
        target.open("w", encoding="utf-8", newline="") as out,
    ):
        lines = _Lines(source, skip)
        writer = csv.writer(out, delimiter=mark, lineterminator="\n")
        nothing = [""] * (len(columns) - 1)
        for number, line in lines:
            row, why = _row(line, lines, mark, len(columns), counts)
            writer.writerow([number, why, *row] if row is not None else [number, why, line, *nothing])
    notes = []
    if counts["literal"]:
        notes.append(f"rows with a quote that opens no field, kept as a character: {counts['literal']:,}")
    if counts["spanning"]:
        notes.append(f"rows over several lines, inside quotes: {counts['spanning']:,}")
    if counts["trailing"]:
        notes.append(
            f"rows that end in a separator with nothing after it, which is left out: {counts['trailing']:,}"
        )
    return notes


class _Lines(Iterator[tuple[int, str]]):
    """The lines of a file that are not empty, with their numbers; can look ahead."""

    def __init__(self, source: IO[str], skip: int) -> None:
        self._source, self._number = source, skip
        self._waiting: list[str] = []
        for _ in range(skip):
            source.readline()

    def _read(self) -> str | None:
        line = self._source.readline(_MOST_BYTES_OF_A_LINE)
        return line.rstrip("\n").removesuffix("\r") if line else None

    def ahead(self, place: int) -> str | None:
        """The line so many after the last one returned; None beyond the end."""
        while len(self._waiting) <= place:
            line = self._read()
            if line is None:
                return None
            self._waiting.append(line)
        return self._waiting[place]

    def drop(self, count: int) -> None:
        """Passes over the next lines."""
        del self._waiting[:count]
        self._number += count

    def __next__(self) -> tuple[int, str]:
        while True:
            line = self._waiting.pop(0) if self._waiting else self._read()
            if line is None:
                raise StopIteration
            self._number += 1
            if line.strip():
                return self._number, line


def _row(
    line: str, lines: _Lines, mark: str, fields: int, counts: dict[str, int]
) -> tuple[list[str] | None, str]:
    """The fields of a row, or None with what is wrong with it."""
    if '"' not in line:
        return _fitted(line.split(mark), fields, counts)
    try:
        return _fitted(next(csv.reader([line], delimiter=mark, strict=True), []), fields, counts)
    except csv.Error as error:
        if "end of data" in str(error):
            joined = _joined(line, lines, mark, fields)
            if joined is not None:
                counts["spanning"] += 1
                return joined, ""
    literal = line.split(mark)
    if len(literal) != fields:
        literal = _lenient(line, mark)
    if len(literal) == fields:
        counts["literal"] += 1
        return literal, ""
    return None, "a quote that does not close"


def _lenient(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def _fitted(row: list[str], fields: int, counts: dict[str, int]) -> tuple[list[str] | None, str]:
    if len(row) > fields and not any(cell.strip() for cell in row[fields:]):
        counts["trailing"] += 1
        row = row[:fields]
    if len(row) == fields:
        return row, ""
    return None, "fewer fields than the header" if len(row) < fields else "more fields than the header"


def _joined(line: str, lines: _Lines, mark: str, fields: int) -> list[str] | None:
    """The row that a line and those after it make; None where the quote is a stray one."""
    parts = [line]
    for place in range(_MOST_LINES_OF_A_CELL):
        more = lines.ahead(place)
        if more is None or (fields > 1 and more.count(mark) == fields - 1 and '"' not in more):
            return None  # the next line is a whole row: the quote was never meant to close
        parts.append(more)
        if '"' not in more:
            continue
        try:
            row = next(csv.reader(["\n".join(parts)], delimiter=mark, strict=True))
        except csv.Error:
            continue
        if len(row) != fields:
            return None
        lines.drop(place + 1)
        return row
    return None
