"""The examples for schedulers are what they say they are, and their words are options that there are."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from retinue.config import _flat, expanded, resolve
from retinue.help import COMMANDS

PAGE = (Path(__file__).parents[1] / "docs" / "scheduling.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def checked(words: list[str], tmp_path: Path) -> None:
    """Whether a command and its words exist; the options file is the page's own."""
    command, *rest = words
    assert command in COMMANDS
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    named = [f"config={tmp_path / 'shop.yaml'}" if word.startswith("config=") else word for word in rest]
    resolve(expanded([word.replace("{{ ds }}", "2024-06-30") for word in named]))


def test_the_options_file_holds_options(tmp_path: Path) -> None:
    assert "data.columns.customer_id=cid" in list(_flat(yaml.safe_load(blocks("yaml")[0])))
    checked(["run", "config=shop.yaml"], tmp_path)


def test_the_lines_of_cron(tmp_path: Path) -> None:
    lines = blocks("cron")[0].splitlines()
    assert len(lines) == 2
    for line in lines:
        *when, command = line.split(maxsplit=5)
        assert all(re.fullmatch(r"\*|\d+", field) for field in when)
        words = shlex.split(command.split(" >> ")[0])
        assert words[0].endswith("/retinue")
        checked(words[1:], tmp_path)


def test_the_units_of_systemd(tmp_path: Path) -> None:
    service, timer = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    for parser, text in zip((service, timer), blocks("ini"), strict=True):
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
    checked(shlex.split(service["Service"]["ExecStart"])[1:], tmp_path)
    assert int(service["Service"]["TimeoutStopSec"]) > 5
    assert "OnCalendar" in timer["Timer"]


def test_the_graph_of_airflow(tmp_path: Path) -> None:
    text = blocks("python")[0]
    tree = ast.parse(text)
    assert any(isinstance(node, ast.FunctionDef) and node.name == "retinue" for node in tree.body)
    words = re.search(r'words = "(.*)"', text)
    assert words is not None
    for command in re.findall(r"bin/retinue (\w+ \{words\}[^\"]*)", text):
        checked(re.sub(r"\{words\}", words[1].replace("{{ ds }}", "2024-06-30"), command).split(), tmp_path)


def test_the_target_of_docker() -> None:
    build, run = (line for line in blocks("sh")[0].splitlines() if line.startswith("docker"))
    target = re.search(r"--target (\w+)", build)
    assert target is not None
    image = (Path(__file__).parents[1] / "Dockerfile.cuda").read_text(encoding="utf-8")
    assert re.search(rf"^FROM .* AS {target[1]}$", image, re.M)
    assert "retinue run config=" in run
