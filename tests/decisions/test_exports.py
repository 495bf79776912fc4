"""Audience files: who gets what, what changed since, and nobody who withdrew."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from retinue.decisions.exports import audiences, export
from retinue.options import ExportOptions
from retinue.schema import EXPORTS, InputError

CUTOFF = datetime(2023, 12, 31, tzinfo=UTC)


def decisions(rows: dict[str, tuple[str, str | None]], withdrawn: tuple[str, ...] = ()) -> pl.DataFrame:
    """Customer to action and channel."""
    ids = list(rows)
    return pl.DataFrame(
        {
            "customer_id": ids, "cutoff": [CUTOFF] * len(ids), "action": [a for a, _ in rows.values()],
            "channel": [c for _, c in rows.values()], "expected_gain": [1.0] * len(ids), "expected_cost": [0.1] * len(ids),
            "policy": ["p"] * len(ids), "consent_state": ["withdrawn" if i in withdrawn else "unknown" for i in ids],
        },
        schema_overrides={"cutoff": EXPORTS.schema["cutoff"], "channel": pl.String},
    )  # fmt: skip


FIRST = decisions(
    {"a": ("mail", "email"), "b": ("call", "phone"), "c": ("none", None), "d": ("mail", "email")}
)


def test_all_of_those_with_an_action_and_no_other() -> None:
    told = audiences(FIRST)
    assert told.select("customer_id", "channel", "change").rows() == [
        ("a", "email", "all"),
        ("d", "email", "all"),
        ("b", "phone", "all"),
    ]


def test_who_withdrew_is_in_no_file() -> None:
    told = audiences(decisions({"a": ("mail", "email"), "b": ("mail", "email")}, withdrawn=("b",)))
    assert told["customer_id"].to_list() == ["a"]


def test_a_delta_adds_changes_and_takes_away() -> None:
    now = decisions(
        {"a": ("discount", "email"), "b": ("mail", "email"), "c": ("mail", "email"), "d": ("none", None)}
    )
    told = audiences(now, audiences(FIRST))
    assert told.select("customer_id", "channel", "action", "change").rows() == [
        ("a", "email", "discount", "changed"),
        ("b", "email", "mail", "changed"),
        ("c", "email", "mail", "added"),
        ("d", "email", "mail", "removed"),
        ("b", "phone", "call", "removed"),
    ]


def test_a_withdrawal_stops_a_running_campaign() -> None:
    now = decisions({"a": ("mail", "email"), "d": ("mail", "email")}, withdrawn=("a",))
    told = audiences(now, audiences(FIRST).filter(pl.col("channel") == "email"))
    assert told.select("customer_id", "change").rows() == [("a", "removed")]


def test_the_deltas_add_up_to_the_whole(tmp_path: Path) -> None:
    """First everything, then a delta, then one that changes nothing; files per channel, in both forms."""
    first = export(FIRST, tmp_path, delta=True)
    assert first.rows == {"email": 2, "phone": 1}
    assert sorted(p.name for p in first.files) == ["email.csv", "email.parquet", "phone.csv", "phone.parquet"]
    second = decisions({"a": ("mail", "email"), "b": ("none", None), "d": ("mail", "email")})
    assert export(second, tmp_path, delta=True).rows == {"email": 0, "phone": 1}
    assert pl.read_parquet(tmp_path / "phone-changes.parquet")["change"].to_list() == ["removed"]
    assert export(second, tmp_path, delta=True).rows == {"email": 0}
    assert export(second, tmp_path, delta=False).rows == {"email": 2}
    assert pl.read_csv(tmp_path / "email.csv")["customer_id"].to_list() == ["a", "d"]


def test_a_channel_is_no_path_and_no_two_share_a_file(tmp_path: Path) -> None:
    export(
        decisions({"a": ("mail", "../../etc"), "b": ("mail", "a/b"), "c": ("mail", "a_b")}),
        tmp_path / "out",
        delta=False,
    )
    names = sorted(p.name for p in (tmp_path / "out").glob("*.csv"))
    assert names == ["%2E%2E%2F%2E%2E%2Fetc.csv", "a%2Fb.csv", "a_b.csv"]
    assert not (tmp_path / "etc.csv").exists()


HOSTILE = ["=HYPERLINK(1)", "+cmd", "-2+3", "@SUM(A1)", " =1", "\t=1", "\rx", "＝1"]
HARMLESS = ["plain", "a=b", "1-2", "O'Hara", "a@b.test"]


def test_cells_that_a_spreadsheet_would_run_are_escaped(tmp_path: Path) -> None:
    """cases/hostile_names.csv"""
    told = decisions(dict.fromkeys([*HOSTILE, *HARMLESS], ("mail", "email")))
    export(told, tmp_path, delta=False)
    written = set(pl.read_csv(tmp_path / "email.csv")["customer_id"])
    assert written == {*(f"'{name}" for name in HOSTILE), *HARMLESS}
    assert set(pl.read_parquet(tmp_path / "email.parquet")["customer_id"]) == {*HOSTILE, *HARMLESS}
    export(told, tmp_path, delta=False, rules=ExportOptions(raw=True))
    assert set(pl.read_csv(tmp_path / "email.csv")["customer_id"]) == {*HOSTILE, *HARMLESS}


def test_a_channel_that_has_nobody_any_more_is_emptied(tmp_path: Path) -> None:
    """cases/all_withdrew.csv"""
    export(FIRST, tmp_path, delta=False)
    nobody = decisions({"a": ("mail", "email"), "b": ("call", "phone")}, withdrawn=("a", "b"))
    done = export(nobody, tmp_path, delta=False)
    assert done.rows == {"email": 0, "phone": 0}
    for name in ("email", "phone"):
        assert pl.read_csv(tmp_path / f"{name}.csv").height == 0
        assert pl.read_parquet(tmp_path / f"{name}.parquet").height == 0


def test_after_everybody_withdrew_the_delta_takes_all_away(tmp_path: Path) -> None:
    export(FIRST, tmp_path, delta=False)
    nobody = decisions({"a": ("mail", "email"), "b": ("call", "phone")}, withdrawn=("a", "b"))
    assert export(nobody, tmp_path, delta=True).rows == {"email": 2, "phone": 1}
    assert set(pl.read_csv(tmp_path / "email-changes.csv")["change"]) == {"removed"}
    export(FIRST, tmp_path, delta=False)
    assert not (tmp_path / "email-changes.csv").exists(), "a delta to what is no longer the last export"


@pytest.mark.parametrize("channel", ["exported", "exports", "log", "email-changes", "Exported"])
def test_channels_cannot_have_names_of_ours(channel: str, tmp_path: Path) -> None:
    told = decisions({"a": ("mail", channel), "b": ("mail", "email")})
    export(told, tmp_path, delta=False)
    assert export(told, tmp_path, delta=True).rows == {channel: 0, "email": 0}
    assert pl.read_parquet(tmp_path / "exported.parquet").height == 2
    assert (tmp_path / f"%{ord(channel[0]):02X}{channel[1:]}.csv").is_file()


def test_without_any_consent_only_what_needs_none_is_exported(tmp_path: Path) -> None:
    needing = ("mail",)
    with pytest.raises(
        InputError, match=r"2 customers would be contacted by email.*export\.assume_consent=true"
    ):
        export(FIRST, tmp_path, delta=False, needing_consent=needing)
    assert not list(tmp_path.iterdir())
    agreed = ExportOptions(assume_consent=True)
    assert export(FIRST, tmp_path, False, agreed, needing).rows == {"email": 2, "phone": 1}
    assert export(decisions({"b": ("call", "phone")}), tmp_path, False, None, needing).rows == {
        "email": 0,
        "phone": 1,
    }
