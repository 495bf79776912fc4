"""The page in headless Chromium, as wide as a desk and as narrow as a phone: drawn, quiet, inside its frame."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retinue.reporting import build_report
from retinue.reporting.forecasts_page import build_forecasts_page
from retinue.schema import CUSTOMER_ID, VALUE_AT_STAKE
from tests.reporting.factory import report_tables, with_actions
from tests.reporting.test_forecasts_page import told_of, with_an_earlier_cutoff

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><img src=x onerror=\"document.documentElement.dataset.hacked='1'\">" + "x" * 120
HARNESS = """<!doctype html><body><iframe id="desk" src="report.html" style="width:1280px;height:900px"></iframe>
<iframe id="phone" src="report.html" style="width:390px;height:844px"></iframe><script>
function seen(frame) {
  const root = frame.contentDocument.documentElement, charts = [...root.querySelectorAll(".chart")];
  return { width: frame.contentWindow.innerWidth, overflow: root.scrollWidth - frame.contentWindow.innerWidth,
    charts: charts.length,
    drawn: charts.filter((c) => c.querySelector("svg.main-svg .plot, svg.main-svg .subplot")).length,
    wider: charts.filter((c) => c.querySelector("svg.main-svg").clientWidth > c.clientWidth).length,
    marks: root.querySelectorAll(".chart .point, .chart .hm image, .chart .heatmaplayer image").length,
    hacked: root.dataset.hacked || "",
    page: frame.contentWindow.getComputedStyle(frame.contentDocument.body).backgroundColor,
    ink: root.querySelector(".chart .point path").style.fill,
    label: root.querySelector("button.theme").textContent,
    story: [...root.querySelectorAll("#story-facts dd")].map((d) => d.textContent).join(" | "),
    events: root.querySelectorAll("#story-events tr").length };
}
window.addEventListener("load", () => setTimeout(() => {
  const frames = ["desk", "phone"].map((id) => document.getElementById(id));
  const before = frames.map(seen);
  frames[0].contentDocument.querySelector("button.theme").click();
  setTimeout(() => { document.body.dataset.result = JSON.stringify({ before, after: seen(frames[0]) }); }, 1500);
}, 3000));
</script></body>"""

Look = tuple[dict[str, Any], str]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """What the harness saw, and what Chromium wrote to its log."""
    folder = tmp_path_factory.mktemp("page")
    tables = report_tables(300)
    victim = tables.decisions.sort(VALUE_AT_STAKE)[CUSTOMER_ID][-1]
    names = ("features", "segments", "forecasts", "decisions")
    renamed = pl.col(CUSTOMER_ID).replace({victim: NASTY})
    frames: dict[str, Any] = {name: getattr(tables, name).with_columns(renamed) for name in names}
    tables = with_actions(replace(tables, **frames, name=NASTY, currency="USD"))
    return seen(build_report(tables), folder)


def seen(page: str, folder: Path) -> Look:
    """Opens the page in frames of both widths."""
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "harness.html").write_text(HARNESS, encoding="utf-8")
    assert CHROMIUM is not None
    options = """--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync
        --disable-component-update --disable-dev-shm-usage --allow-file-access-from-files --enable-logging=stderr
        --window-size=1700,1000 --virtual-time-budget=20000 --dump-dom""".split()  # noqa: SIM905
    run = subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={folder / 'profile'}", (folder / "harness.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'data-result="([^"]*)"', run.stdout)
    assert found, run.stderr[-2000:]
    return json.loads(html.unescape(found[1])), run.stderr


def test_every_chart_is_drawn_at_both_widths(look: Look) -> None:
    for place, width in zip(look[0]["before"], (1280, 390), strict=True):
        assert place["width"] == width
        assert place["drawn"] == place["charts"] == 16
        assert place["marks"] > 300


def test_nothing_runs_over_the_edge(look: Look) -> None:
    for place in look[0]["before"]:
        assert place["overflow"] <= 0
        assert place["wider"] == 0


def test_the_console_stays_empty(look: Look) -> None:
    assert [line for line in look[1].splitlines() if "CONSOLE" in line] == []


def test_an_id_full_of_markup_does_nothing(look: Look) -> None:
    assert [place["hacked"] for place in look[0]["before"]] == ["", ""]


def test_the_button_changes_page_and_charts(look: Look) -> None:
    before, after = look[0]["before"][0], look[0]["after"]
    assert before["page"] != after["page"]
    assert before["ink"] != after["ink"]
    assert before["label"] != after["label"]
    assert after["drawn"] == 16


def test_the_first_story_is_told(look: Look) -> None:
    for place in look[0]["before"]:
        assert "service: 2 tickets <in> 90 days" in place["story"]
        assert place["events"] > 0


def test_the_page_of_forecasts_is_drawn_inside_its_frame_and_quiet(tmp_path: Path) -> None:
    """Two cutoffs, the customer most worth saving and the base being full of markup."""
    tables = with_an_earlier_cutoff(report_tables(300))
    told = told_of(tables, tmp_path)
    assert told.groups is not None
    victim = told.groups.save[CUSTOMER_ID][0]
    renamed = tables.forecasts.with_columns(pl.col(CUSTOMER_ID).replace({victim: NASTY}))
    page = build_forecasts_page(
        told_of(replace(tables, forecasts=renamed, name=NASTY), tmp_path, checkpoint=NASTY)
    )
    found, log = seen(page, tmp_path)
    for place, width in zip(found["before"], (1280, 390), strict=True):
        assert place["width"] == width
        assert place["drawn"] == place["charts"] == 12
        assert place["marks"] > 100
        assert (place["overflow"] <= 0, place["wider"], place["hacked"]) == (True, 0, "")
    assert found["before"][0]["ink"] != found["after"]["ink"]
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
