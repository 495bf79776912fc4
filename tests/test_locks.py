"""The locks: every package by its hash, at the versions of constraints.txt; images by digest, compilers only where needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = {"dev": ("demo", "dev"), "gpu": ("gpu-cu13",), "gpu-test": ("gpu-cu13", "demo", "dev")}
PIN = re.compile(r"(?m)^([a-z0-9][\w.-]*)(?:\[[\w,]+\])?==(\S+)")


def pins(path: Path) -> dict[str, str]:
    return dict(PIN.findall(path.read_text()))


def direct(extras: tuple[str, ...]) -> set[str]:
    """Names of the packages that the project itself asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    return {re.split(r"[\[<>=]", line)[0] for line in lines}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_direct_package_at_its_pinned_version(name: str) -> None:
    locked, pinned = pins(ROOT / "locks" / f"{name}.txt"), pins(ROOT / "constraints.txt")
    absent = {"torch"} if name == "dev" else set()  # its build is the machine's choice
    wanted = {package: pinned[package] for package in direct(LOCKS[name]) - absent}
    assert wanted == {package: locked.get(package) for package in wanted}, "run: make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_hash(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    entries = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert len(entries) == len(PIN.findall(text)) > 50
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text


def test_images_are_pinned_by_digest_and_the_last_holds_no_compiler() -> None:
    stages: dict[str, tuple[str, str]] = {}
    for text in re.split(r"(?m)^FROM ", (ROOT / "Dockerfile.cuda").read_text())[1:]:
        image, _, name = text.split("\n", 1)[0].split()
        assert image in stages or re.search(r"@sha256:[0-9a-f]{64}$", image), image
        stages[name] = image, stages.get(image, ("", ""))[1] + text
    assert list(stages)[-1] == "runtime"
    assert {name for name, (_, text) in stages.items() if "gcc" in text} == {"test", "train"}
    for line in re.findall(r"pip install (.*?)(?: &&|$)", (ROOT / "Dockerfile.cuda").read_text(), re.M):
        assert "--no-deps" in line
        assert "--require-hashes" in line or line.strip().endswith("--no-deps .")
