"""The walls of the house: who may import whom, who knows Hydra and the hardware, who compares times."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue import schema

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "retinue"
FILES = sorted(SOURCE.rglob("*.py"))

# Each room may import the rooms named here and itself, nothing else of ours.
MAY_IMPORT = {
    "schema": set(),
    "options": set(),
    "config": {"schema", "options"},
    "accel": {"schema", "options"},
    "cluster": {"schema", "options", "config"},
    "worlds": {"schema"},
    "events": {"schema", "options", "config", "accel", "cluster"},
    "features": {"schema", "options", "config", "accel", "cluster", "events"},
    "segments": {"schema", "options", "config", "accel", "events", "features"},
    "sequences": {"schema", "options", "config", "accel", "cluster", "events"},
    "models": {"schema", "options", "config", "accel", "events", "sequences"},
    "training": {"schema", "options", "config", "accel", "events", "sequences", "models"},
    "pretraining": {"schema", "options", "config", "accel", "events", "worlds", "sequences", "models", "training"},
    "evaluation": {"schema", "options", "config", "events", "models"},
    "forecasting": {
        "schema", "options", "config", "accel", "cluster", "events", "features", "sequences", "models", "training", "pretraining",
        "evaluation",
    },
    "decisions": {
        "schema", "options", "config", "accel", "events", "features", "segments", "models", "evaluation", "forecasting",
    },
    "reporting": {
        "schema", "options", "config", "events", "features", "segments", "models", "training", "evaluation", "forecasting",
        "decisions",
    },
}  # fmt: skip
MAY_IMPORT["watchdog"] = set()
MAY_IMPORT["runs"] = {"schema", "options", "config", "events"}
MAY_IMPORT["stages"] = set(MAY_IMPORT)
MAY_IMPORT["pipeline"] = set(MAY_IMPORT)
MAY_IMPORT["judge"] = set(MAY_IMPORT)
MAY_IMPORT["bases"] = set(MAY_IMPORT)
MAY_IMPORT["results"] = set(MAY_IMPORT)
MAY_IMPORT["train"] = set(MAY_IMPORT)
MAY_IMPORT["pretrain"] = set(MAY_IMPORT)
MAY_IMPORT["score"] = set(MAY_IMPORT)
MAY_IMPORT["policy"] = set(MAY_IMPORT)
MAY_IMPORT["experiment"] = set(MAY_IMPORT)
MAY_IMPORT["help"] = {"schema", "options", "config"}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__init__"] = set()


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "retinue")


def test_every_room_is_on_the_plan() -> None:
    rooms = {room_of(path) for path in FILES}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("retinue.")}
    assert ours - {room} <= MAY_IMPORT[room], f"{room} imports {sorted(ours - {room} - MAY_IMPORT[room])}"


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("hydra", "config"),
        ("omegaconf", "config"),
        ("cudf", "accel"),
        ("cuml", "accel"),
        ("cuda", "accel"),
        ("ray", "cluster"),
    ],
)
def test_one_room_knows(package: str, owner: str) -> None:
    knowing = {room_of(p) for p in FILES if any(name.split(".")[0] == package for name in imported(p))}
    assert knowing <= {owner}


def is_a_time(operand: ast.expr) -> bool:
    """A cutoff, or the column of an event's time itself (not a duration made from it)."""
    if (
        isinstance(operand, ast.Call)
        and isinstance(operand.func, ast.Attribute)
        and operand.func.attr == "col"
    ):
        return any(isinstance(a, ast.Name) and a.id in {"EVENT_TIME", "KNOWN_TIME"} for a in operand.args)
    name = (
        operand.id
        if isinstance(operand, ast.Name)
        else operand.attr
        if isinstance(operand, ast.Attribute)
        else ""
    )
    return "cutoff" in name.lower()


def test_one_file_compares_times_with_a_cutoff() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Compare):
                continue
            ordered = any(isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)) for op in node.ops)
            if ordered and any(is_a_time(operand) for operand in [node.left, *node.comparators]):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert {line.split(":")[0] for line in found} == {"events/timeline.py"}, found


def test_column_names_live_in_the_schema() -> None:
    tables = (schema.EVENTS, schema.SEGMENTS, schema.FORECASTS, schema.DECISIONS, schema.REALISED)
    columns = {str(column) for table in tables for column in table.columns + table.optional}
    found = []
    for path in FILES:
        if room_of(path) == "schema":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "col"
            ):
                continue
            if any(isinstance(arg, ast.Constant) and arg.value in columns for arg in node.args):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert not found


def test_scripts_are_doors() -> None:
    for path in (ROOT / "scripts").glob("*.py"):
        if not path.name.startswith("bench_"):
            assert len(path.read_text().splitlines()) < 40, path.name


def test_presets_stay_few_and_name_no_classes() -> None:
    presets = list((ROOT / "conf").rglob("*.yaml"))
    assert 0 < len(presets) < 30
    assert not [p.name for p in presets if "_target_" in p.read_text()]


def test_no_machine_path_or_leftover_notes() -> None:
    found = []
    for path in [
        *FILES,
        *(path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix != ".pyc"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md",
        ROOT / "Makefile",
    ]:
        text = path.read_text()
        found += [
            f"{path.name}: {word}"
            for word in ("/" + "work/", "/" + "root/", "TO" + "DO", "FIX" + "ME")
            if word in text
        ]
    assert not found


def test_dev_holds_the_extras_that_tests_stand_for() -> None:
    """`make extras` leaves them out: an environment in which the tests ran has resolved them."""
    import tomllib

    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = told["project"]["optional-dependencies"]
    for name in ("experiments", "ray", "tracking"):
        assert set(extras[name]) <= set(extras["dev"]), name
