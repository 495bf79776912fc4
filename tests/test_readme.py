"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from retinue.config import resolve

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(
    find_spec("lifetimes") is None, reason="the CDNOW file is in the package lifetimes (extra demo)"
)
def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    orders, clv = (float(word) for word in capsys.readouterr().out.strip().splitlines()[-1].split())
    assert 10_000 < orders < 30_000
    assert 300_000 < clv < 1_200_000


def test_every_command_of_the_readme_has_words_that_resolve() -> None:
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    commands = [shlex.split(line)[2:] for line in shell.splitlines() if line.startswith("retinue ")]
    assert len(commands) >= 2
    for words in commands:
        resolve(words)


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_of_the_first_hour_on_a_gpu_has_words_that_resolve() -> None:
    page = (ROOT / "docs" / "first-hour-gpu.md").read_text(encoding="utf-8")
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("    retinue ")]
    assert [command for command, *_ in commands] == ["worlds", "features", "train", "forecast"]
    for _, *words in commands[1:]:
        resolve(words)
