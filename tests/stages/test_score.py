"""`retinue train`, then `retinue forecast checkpoint=…` at a later cutoff, by two processes and again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from retinue.cli import main
from retinue.forecasting.changes import changes_between
from retinue.forecasting.ledger import Ledger
from retinue.forecasting.scoring import read_forecasts
from retinue.schema import CUSTOMER, CUSTOMER_ID, CUTOFF, FORECAST_CHANGES, FORECASTS, HORIZON_DAYS, REASONS
from tests.stages.runs import training_words

QUICK = ("training.steps=3", "training.readouts=256")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return training_words(tmp_path_factory.mktemp("score"), "shards=2")


@pytest.fixture(scope="module")
def checkpoint(words: list[str]) -> Path:
    """Trained at an earlier cutoff."""
    assert main(["train", *words, "cutoff=2014-06-30", "horizon_days=60", *QUICK]) == 0
    output = next(word.removeprefix("output=") for word in words if word.startswith("output="))
    return Path(output) / "checkpoints" / "sequence_gru"


def test_a_later_cutoff_is_forecast_by_two_processes_and_then_stands(
    words: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = checkpoint, checkpoint.parent.parent
    later = ["forecast", *words, f"checkpoint={folder}", "cutoff=2014-09-30", "horizon_days=[30,60]"]
    assert main([*later, "scoring.rank=0", "scoring.world_size=2"]) == 0
    told = capsys.readouterr().out
    assert "1 shards written, 0 stood already" in told
    assert "report:" not in told
    page = out / "forecasts.html"
    assert not page.exists()
    first = read_forecasts(out, "cutoff=2014-09-30").collect()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(later) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page}"
    assert page.is_file()
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    found = FORECASTS.check(read_forecasts(out, "cutoff=2014-09-30").collect())
    assert set(first[CUSTOMER_ID]) < set(found[CUSTOMER_ID])
    assert not found.select(CUSTOMER_ID, CUTOFF, HORIZON_DAYS).is_duplicated().any()
    events = pl.read_parquet(out / "events" / "shard-*.parquet")
    ordered = events.filter(
        pl.col("event_type") == "order", pl.col("event_time") < pl.datetime(2014, 10, 1, time_zone="UTC")
    )
    assert set(found[CUSTOMER_ID]) == set(ordered[CUSTOMER_ID])
    in_shard = ordered.select(CUSTOMER_ID, CUSTOMER).unique().filter(pl.col(CUSTOMER) % 2 == 0)
    assert set(first[CUSTOMER_ID]) == set(in_shard[CUSTOMER_ID])
    capsys.readouterr()
    assert main(later) == 0
    assert "0 shards written, 2 stood already" in capsys.readouterr().out
    summary, text = pl.read_parquet(out / "forecasts_summary.parquet"), page.read_text(encoding="utf-8")
    assert summary["customers"].to_list() == [found[CUSTOMER_ID].n_unique()] * 2
    for name in ("customers", "expected_churners", "expected_orders"):
        assert all(f">{value:,.0f}</td>" in text for value in summary[name])
    assert "trained on these data up to 2014-06-30" in text
    assert "The data were not checked" in text
    assert main(["doctor", *words, "cutoff=2014-09-30", "horizon_days=[30,60]"]) == 0
    assert main(later) == 0
    text = page.read_text(encoding="utf-8")
    assert "The data were not checked" not in text
    findings = pl.read_parquet(out / "quality.parquet")
    assert text.count('<span class="badge') == findings.height > 3


def test_each_day_stays_enters_the_ledger_and_names_what_changed(
    words: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, f"output={tmp_path / 'daily'}", f"ledger={tmp_path / 'ledger'}", "horizon_days=60"]
    daily = ["forecast", *words, f"checkpoint={checkpoint}"]
    assert main([*daily, "cutoff=2014-04-30"]) == 0
    assert "since" not in capsys.readouterr().out
    assert main([*daily, "cutoff=2014-09-30"]) == 0
    shown = capsys.readouterr().out
    before, now = (
        read_forecasts(tmp_path / "daily", f"cutoff={day}").collect() for day in ("2014-04-30", "2014-09-30")
    )
    new = set(now[CUSTOMER_ID]) - set(before[CUSTOMER_ID])
    assert new
    assert f"since 30 Apr 2014, 60 days ahead: {len(new):,} new customers, 0 gone" in shown
    changes = FORECAST_CHANGES.check(pl.read_parquet(tmp_path / "daily" / "forecast_changes.parquet"))
    both = before.join(now, on=CUSTOMER_ID)
    assert changes["in_both"].to_list() == [both.height]
    assert changes["clv_before"][0] == pytest.approx(both["clv"].sum())
    assert changes["clv_now"][0] == pytest.approx(both["clv_right"].sum())
    ledger = Ledger(tmp_path / "ledger").read()
    assert dict(ledger.group_by("cutoff").len().iter_rows()) == {
        before["cutoff"][0]: before.height,
        now["cutoff"][0]: now.height,
    }
    assert main([*daily, "cutoff=2014-04-30"]) == 0
    assert "0 shards written, 2 stood already" in capsys.readouterr().out
    assert Ledger(tmp_path / "ledger").read().height == ledger.height
    summary = pl.read_parquet(tmp_path / "daily" / "forecasts_summary.parquet")
    assert summary["cutoff"].to_list() == [before["cutoff"][0]]
    assert not (tmp_path / "daily" / "forecast_changes.parquet").exists(), (
        "nothing stands before the first day"
    )


def test_changes_count_customers_by_how_their_risk_moved() -> None:
    def at(day: datetime, model: str, rows: dict[str, tuple[float, float]]) -> pl.LazyFrame:
        made = [
            {"customer_id": who, "cutoff": day, "horizon_days": 30, "model": model, "p_churn": p, "clv": clv}
            for who, (p, clv) in rows.items()
        ]
        return pl.LazyFrame(
            made, schema_overrides={"horizon_days": pl.Int32, "cutoff": pl.Datetime("us", "UTC")}
        )

    first, second = (datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2))
    before = at(first, "a", {"up": (0.2, 5.0), "same": (0.5, 7.0), "down": (0.9, 1.0), "gone": (0.9, 100.0)})
    now = at(second, "b", {"up": (0.3, 4.0), "same": (0.55, 7.0), "down": (0.1, 9.0), "new": (0.4, 1000.0)})
    assert changes_between(before, now).rows() == [(second, first, 30, "b", "a", 3, 1, 1, 1, 1, 13.0, 20.0)]


def test_causes_are_sought_on_request_and_kept(words: list[str], checkpoint: Path) -> None:
    out = checkpoint.parent.parent
    asked = ["forecast", *words, f"checkpoint={checkpoint}", "cutoff=2014-08-31", "horizon_days=[30,60]"]
    table, page = out / "reasons.parquet", out / "forecasts.html"
    assert main(asked) == 0
    assert not table.exists()
    assert "Why at risk" not in page.read_text(encoding="utf-8")
    few = [*asked, "scoring.causes=true", "decisions.reasons_for=20"]
    assert main(few) == 0
    told, kept = REASONS.check(pl.read_parquet(table)), table.stat().st_mtime_ns
    assert told.height == 20
    assert told["value_at_stake"].is_sorted(descending=True)
    assert "Why at risk" in page.read_text(encoding="utf-8")
    assert main(few) == 0
    assert table.stat().st_mtime_ns == kept
    assert main([*asked, "scoring.causes=true"]) == 0
    everyone = (
        read_forecasts(out, "cutoff=2014-08-31").select(pl.col(CUSTOMER_ID).n_unique()).collect().item()
    )
    assert pl.read_parquet(table).height == everyone > 20
    assert main([*few[:-3], "horizon_days=30"]) == 0
    assert not table.exists(), "of other forecasts"


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        (["checkpoint=nowhere"], "holds no card.json"),
        (["checkpoint=checkpoints/base", "scoring.causes=true"], "reads order histories and no features"),
        (
            ["checkpoint=nowhere", "scoring.rank=2", "scoring.world_size=2"],
            "scoring.rank=2: must lie between 0",
        ),
        (["checkpoint=nowhere", "scoring.world_size=0"], "scoring.world_size=0: must lie between 1"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], more: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forecast", *words, *more]) == 1
    said = capsys.readouterr().err
    assert rule in " ".join(said.split())
    assert "Traceback" not in said
