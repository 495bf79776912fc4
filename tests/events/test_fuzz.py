"""Any bytes end in one line that says what is wrong, or in a store that accounts for every row."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retinue.schema import InputError
from tests.events.files import prepared

IDS: list[Any] = [
    "a",
    "b ",
    "12345.0",
    "ü",
    "",
    None,
    "=1+1",
    "x" * 300,
    "\u200bz",
    7,
    1.5,
    True,
    "NA",
    "a\nb",
    'q"q',
    [1],
    {"k": 1},
]
TIMES: list[Any] = [
    "2024-01-05", "2024-01-05 10:00:00", "2024-01-05T10:00:00Z", "2024-01-05T10:00:00+02:00", "05/01/2024", "13/12/2023",
    "0001-01-01", "9999-12-31", "0000-00-00", "1704450600", "1704450600000", "45296", "20240105", "never", "", None,
    "1970-01-01", "2024-02-30", "Jan 5 2024", "01/05/2024 12:18 AM", 1704450600, 20240105, -1, 1e18, "2024-01-05 25:00",
]  # fmt: skip
AMOUNTS: list[Any] = [
    "1", "1.5", "1,5", "1.234,50", "-3", "(4.00)", "5.00-", "$118.17", "106,76 €", "1e300", "1e-12", "nan", "inf", "-inf", "",
    None, "free", "4111111111111111", "9" * 400, 3, -2.5, 1e308, 10**30, "٣", "0x10", "1_000",
]  # fmt: skip
KINDS: list[Any] = [
    "order",
    "refund",
    "Order",
    "purchase",
    "visit",
    "",
    None,
    "order ",
    "consent_withdrawn",
    5,
]
HEADERS = [
    "customer_id,event_time,amount", "customer_id,event_time,event_type,amount", "customer_id,event_time,amount,",
    "customer_id;event_time;amount", "customer_id\tevent_time\tamount\torder_id", "customer_id,event_time",
    "event_time,customer_id,amount,customer_id", "cid,when,value",
]  # fmt: skip
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "cp1252", "utf-16-le"]


def cell(rng: random.Random, column: str) -> Any:
    pools = {"customer_id": IDS, "event_time": TIMES, "amount": AMOUNTS, "event_type": KINDS}
    return rng.choice(pools.get(column, IDS))


def mostly(rng: random.Random, column: str) -> Any:
    """A cell that is fine nine times in ten, so that some files get through."""
    day = f"2024-01-{rng.randrange(1, 29):02d}"
    good = {"customer_id": f"c{rng.randrange(5)}", "event_time": day, "amount": 9, "event_type": "order"}
    return cell(rng, column) if rng.random() < 0.1 else good.get(column, f"x{rng.randrange(9)}")


def damaged(rng: random.Random, content: bytes) -> bytes:
    """A few bytes changed, cut out or doubled."""
    changed = bytearray(content)
    for _ in range(rng.choice([0, 0, 0, 1, 3, 20])):
        if not changed:
            break
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randrange(1, 40)]
            case 2:
                changed[at:at] = rng.choice([b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"}{"])
            case _:
                changed[at:at] = changed[at : at + 200]
    return bytes(changed)


def text_file(rng: random.Random, folder: Path) -> Path:
    header = rng.choice(HEADERS)
    mark = next(mark for mark in ",;\t" if mark in header)
    names = header.split(mark)
    quote = rng.random() < 0.3
    lines = [header]
    for _ in range(rng.randrange(0, 40)):
        cells = ["" if value is None else str(value) for value in (mostly(rng, name) for name in names)]
        if quote or rng.random() < 0.5:
            cells = [
                f'"{value.replace(chr(34), chr(34) * 2)}"' if quote or mark in value else value
                for value in cells
            ]
        if rng.random() < 0.02:
            cells = cells[: rng.randrange(len(cells))] + cells
        lines.append(mark.join(cells))
    text = rng.choice(["\n"] * 4 + ["\r\n", "\r"]).join(lines) + rng.choice(["", "\n", "\n\n"])
    path = folder / "orders.csv"
    path.write_bytes(damaged(rng, text.encode(rng.choice(ENCODINGS), errors="replace")))
    return path


def json_file(rng: random.Random, folder: Path) -> Path:
    names = [
        "customer_id",
        "event_time",
        "amount",
        *rng.sample(["event_type", "order_id", "nested", "note"], 2),
    ]
    lines = []
    for _ in range(rng.randrange(0, 40)):
        row = {name: mostly(rng, name) for name in names if rng.random() < 0.95}
        lines.append(json.dumps(row))
    path = folder / "orders.jsonl"
    path.write_bytes(damaged(rng, "\n".join(lines).encode()))
    return path


def parquet_file(rng: random.Random, folder: Path) -> Path:
    height = rng.randrange(0, 40)
    kinds: list[Any] = [
        pl.String, pl.Int64, pl.Int8, pl.Float32, pl.Float64, pl.Boolean, pl.Date, pl.Datetime("ms"), pl.Datetime("ns", "UTC"),
        pl.Datetime("us", "America/New_York"), pl.Duration("us"), pl.Time, pl.Binary, pl.Categorical, pl.Null, pl.Decimal(20, 2),
        pl.List(pl.Int64), pl.UInt64,
    ]  # fmt: skip
    columns = []
    for name in (
        "customer_id",
        "event_time",
        "amount",
        rng.choice(["event_type", "order_id", "category", "known_time"]),
    ):
        values = pl.Series(name, [str(mostly(rng, name)) for _ in range(height)], dtype=pl.String)
        kind = rng.choice(kinds) if rng.random() < 0.35 else pl.String
        if kind in (pl.Date, pl.Time) or isinstance(kind, (pl.Datetime, pl.Duration)):
            whole = pl.Series(
                name, [rng.choice([0, 1, 19_700, -(2**31), 2**31 - 1]) for _ in range(height)], dtype=pl.Int64
            )
            physical = (
                whole.cast(pl.Int32) if kind == pl.Date else whole.abs() if kind == pl.Time else whole * 10**9
            )
            columns.append(physical.cast(kind, strict=False))
        elif kind == pl.Binary or isinstance(kind, pl.List):
            made = [b"x" if kind == pl.Binary else [1, 2]] * height
            columns.append(pl.Series(name, made, dtype=kind))
        elif kind == pl.Boolean:
            columns.append(pl.Series(name, [True] * height))
        elif kind == pl.Null:
            columns.append(pl.Series(name, [None] * height, dtype=pl.Null))
        else:
            columns.append(values.cast(kind, strict=False))
    path = folder / "orders.parquet"
    pl.DataFrame(columns).write_parquet(path)
    path.write_bytes(damaged(rng, path.read_bytes()))
    return path


MAKERS = (text_file, text_file, json_file, parquet_file)
MOST_SECONDS = 10.0


def check(seed: int, folder: Path) -> bool:
    """Whether the file of a seed became a store; its account is right, or the refusal is one printable line."""
    rng = random.Random(seed)
    path = rng.choice(MAKERS)(rng, folder)
    refusal = ""
    try:
        store = prepared(path, folder, rng.choice([1, 3]), max_bad_share=rng.choice([0.05, 0.5, 1.0]))
    except InputError as error:
        refusal = str(error)
    if refusal:
        assert refusal.isprintable()
        assert len(refusal) < 2_000
        assert not (folder / "store").exists()
        return False
    about = store.manifest
    assert about.rows_in == about.rows_kept + about.rows_quarantined + about.rows_duplicate
    assert store.quarantine().height == about.rows_quarantined
    assert store.scan().collect().height == about.events
    shutil.rmtree(folder / "store")
    return True


def check_all(seeds: range, folder: Path) -> None:
    stored, wrong = 0, []
    for seed in seeds:
        began = time.monotonic()
        try:
            stored += check(seed, folder)
        except BaseException as error:  # a panic of Polars is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong.append(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
        if time.monotonic() - began > MOST_SECONDS:
            wrong.append(f"seed {seed}: more than {MOST_SECONDS:g} s")
    assert not wrong, f"{len(wrong)} of {len(seeds)}:\n" + "\n".join(wrong[:20])
    assert 0.1 < stored / len(seeds) < 0.9, "the files are all bad, or all good"


def test_300_files_end_in_a_line_or_in_a_store(tmp_path: Path) -> None:
    check_all(range(300), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_20000_files_end_in_a_line_or_in_a_store(block: int, tmp_path: Path) -> None:
    check_all(range(1_000 * (block + 1), 1_000 * (block + 2)), tmp_path)
