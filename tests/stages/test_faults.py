"""A run folder under faults: replaced inputs, cut stamps, failing commands, a full disk, two runs at once."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retinue import cli
from retinue.cli import main
from retinue.events import prepare as preparing
from retinue.runs import Stage, stage_key
from tests.stages.runs import orders, words


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with orders.parquet and a finished run in out/."""
    folder = tmp_path_factory.mktemp("finished")
    orders(200).write_parquet(folder / "orders.parquet")
    assert main(words(folder / "orders.parquet", folder / "out")) == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may break; its own file, so that the input stays the same file."""
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path


def command(finished: Path, folder: Path) -> list[str]:
    return words(finished / "orders.parquet", folder / "out")


def test_an_input_replaced_while_a_run_works_is_refused_and_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "orders.parquet"
    orders(100).write_parquet(path)
    run = ["features", *words(path, tmp_path / "out")[1:]]
    build = cli_build()

    def replaces(*args: Any, **rest: Any) -> Any:
        orders(100).with_columns(pl.col("value") * 10).write_parquet(path)
        return build(*args, **rest)

    with monkeypatch.context() as patched:
        patched.setattr("retinue.pipeline.build", replaces)
        assert main(run) == 1
    assert "a file changed while it was read or worked on" in " ".join(capsys.readouterr().err.split())
    before = pl.read_parquet(tmp_path / "out" / "features.parquet")["net_spend_ever"].sum()
    assert main(run) == 0
    assert "prepare: unchanged" not in capsys.readouterr().err
    after = pl.read_parquet(tmp_path / "out" / "features.parquet")["net_spend_ever"].sum()
    assert after == pytest.approx(10 * before)


def cli_build() -> Any:
    from retinue.features.table import build

    return build


def test_a_file_that_changes_while_it_is_read_leaves_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orders.parquet"
    orders(50).write_parquet(path)
    second = preparing._second_pass

    def changes(*args: Any, **rest: Any) -> Any:
        orders(60).write_parquet(path)
        return second(*args, **rest)

    monkeypatch.setattr(preparing, "_second_pass", changes)
    assert main(["prepare", *words(path, tmp_path / "out")[1:]]) == 1
    assert not (tmp_path / "out" / "events").exists()


def test_rows_in_the_future_come_back_when_the_clock_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "orders.parquet"
    orders(100).write_parquet(path)
    prepare = ["prepare", *words(path, tmp_path / "out")[1:], "data.max_bad_share=1.0"]
    real = datetime.now(UTC)

    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.replace(year=2014, month=1, day=1)

    with monkeypatch.context() as patched:
        patched.setattr(preparing, "datetime", Behind)
        assert main([*prepare[:-1], "data.max_bad_share=0.05"]) == 1
        assert "lie in the future by this machine's clock" in " ".join(capsys.readouterr().err.split())
        assert main(prepare) == 0
    held = json.loads((tmp_path / "out" / "events" / "manifest.json").read_text())
    assert held["rows_quarantined"] > 100
    assert held["future_from"] is not None
    assert main(prepare) == 0
    now = json.loads((tmp_path / "out" / "events" / "manifest.json").read_text())
    assert now["rows_quarantined"] < 50
    assert now["future_from"] is None


def test_a_failed_command_changes_nothing(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (folder / "out" / "config.yaml").read_bytes()
    assert main([*command(finished, folder), "cutoff=1990-01-01"]) == 1
    assert main(["decide", f"output={folder / 'out'}", "data.path=/nowhere.csv"]) == 1
    assert (folder / "out" / "config.yaml").read_bytes() == config
    capsys.readouterr()
    assert main(command(finished, folder)) == 0
    assert capsys.readouterr().err.count("unchanged, kept") == 7


def test_a_command_without_data_takes_the_options_of_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"output={folder / 'out'}"
    assert main(["export", output, "export.assume_consent=true"]) == 0
    seen = capsys.readouterr()
    assert "forecast: unchanged, kept" in seen.err
    assert "export: done" in seen.out
    assert main(["decide", output, "budget=5"]) == 0
    assert pl.read_parquet(folder / "out" / "limits.parquet")["limit"].to_list() == ["budget"]


@pytest.mark.parametrize("content", ["", "{", '{"key": 1}', "[]"])
def test_a_stamp_that_is_cut_makes_its_stage_again(
    content: str, finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out" / ".stages" / "segment.json").write_text(content)
    assert main(command(finished, folder)) == 0
    seen = capsys.readouterr().err
    assert "segment: done" in seen
    assert "forecast: unchanged, kept" in seen


def test_a_table_changed_in_place_is_made_again(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same size, so that only its content tells."""
    path = folder / "out" / "segments.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert main(command(finished, folder)) == 0
    assert "segment: done" in capsys.readouterr().err
    assert pl.read_parquet(path).equals(pl.read_parquet(finished / "out" / "segments.parquet"))


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out" / ".stages" / "report.json").unlink()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    with monkeypatch.context() as patched:
        patched.setattr("retinue.stages.write_text", full)
        assert main(command(finished, folder)) == 1
    seen = " ".join(capsys.readouterr().err.split())
    assert "error report.html: No space left on device. Free some space" in seen
    assert "Traceback" not in seen
    assert main(command(finished, folder)) == 0


def test_a_fault_of_ours_is_one_line_a_file_and_exit_code_70(
    finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(cli, "_work", broken)
    assert main(command(finished, folder)) == 70
    seen = " ".join(capsys.readouterr().err.split())
    assert "a fault of retinue (ZeroDivisionError: division by zero). Please send " in seen
    path = Path(seen.split("Please send ")[1].split(":")[0])
    text = path.read_text()
    path.unlink()
    assert "Traceback" in text
    assert "data.path=" in text


def test_two_runs_in_one_folder_do_not_meet(finished: Path, folder: Path) -> None:
    (folder / "out" / ".stages" / "features.json").unlink()
    run = [sys.executable, "-m", "retinue.cli", *command(finished, folder)]
    both = [
        subprocess.Popen(run, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)
    ]
    ended = [(one.communicate()[1], one.returncode) for one in both]
    codes = sorted(code for _, code in ended)
    assert codes in ([0, 0], [0, 1])
    if codes == [0, 1]:
        assert "another run is writing there" in next(text for text, code in ended if code)
    assert_frame_equal(
        pl.read_parquet(folder / "out" / "features.parquet"),
        pl.read_parquet(finished / "out" / "features.parquet"),
    )


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("experiment=no_such_preset", "experiment=no_such_preset: there is no such preset"),
        ("data.name=${oc.env:HOME}", "is not read here"),
        ("config=nowhere.yaml", "config=nowhere.yaml: cannot be read"),
    ],
)
def test_words_that_were_ignored_or_leaked_are_refused(
    word: str, rule: str, finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(finished, folder), word]) == 1
    assert rule in " ".join(capsys.readouterr().err.split())


def test_options_in_a_file_are_words_and_words_override_them(finished: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop.yaml"
    given = dict(word.split("=", 1) for word in words(finished / "orders.parquet", tmp_path / "out")[1:])
    lines = [
        f"cutoff: {given['cutoff']}",
        "horizon_days: [30]",
        "data:",
        f"  path: {given['data.path']}",
        "  columns:",
    ]
    lines += [
        f"    {key.rsplit('.', 1)[1]}: {value}"
        for key, value in given.items()
        if key.startswith("data.columns.")
    ]
    lines += ["  null_values: ['', \"n/a, or 'none'\"]", f"output: {tmp_path / 'out'}"]
    shop.write_text("\n".join(lines))
    from retinue.config import expanded, resolve

    options = resolve(expanded([f"config={shop}", "horizon_days=[60]"]))
    assert options.cutoffs == [given["cutoff"]]
    assert options.horizons == [60]
    assert options.data.null_values == ["", "n/a, or 'none'"]
    assert options.data.columns.amount == "value"
    assert main(["prepare", f"config={shop}"]) == 0


def test_keys_follow_from_the_store_as_it_was_made(finished: Path) -> None:
    from retinue.config import resolve

    options = resolve(words(finished / "orders.parquet", finished / "out")[1:])
    assert stage_key(Stage.forecast, options, "one") != stage_key(Stage.forecast, options, "other")
    assert stage_key(Stage.prepare, options) == stage_key(Stage.prepare, options)


def test_a_link_in_place_of_the_lock_is_not_followed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / "out" / ".lock").unlink()
    (folder / "out" / ".lock").symlink_to(victim)
    assert main(["decide", f"output={folder / 'out'}"]) == 1
    assert "is a symbolic link" in " ".join(capsys.readouterr().err.split())
    assert victim.read_text() == "precious"


def test_foreign_and_broken_files_in_the_ledger_stop_nothing(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = folder / "out" / "ledger"
    before = sorted(ledger.glob("[0-9]*.parquet"))
    assert before
    (ledger / "notes.parquet").write_bytes(b"mine")
    (ledger / "000009-cut.parquet").write_bytes(before[0].read_bytes()[:50])
    pl.DataFrame({"a": [1]}).write_parquet(ledger / "000010-other.parquet")
    assert main(["ledger", *command(finished, folder)[1:]]) == 0
    seen = capsys.readouterr()
    for name in ("notes", "000009-cut", "000010-other"):
        assert f"{name}.parquet is no entry" in seen.err
    assert "forecasts of 1 runs kept" in seen.out
