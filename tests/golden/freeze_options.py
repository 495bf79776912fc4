"""Freezes the option tree, so that each new option is a visible decision: python -m tests.golden.freeze_options."""

from __future__ import annotations

from pathlib import Path

from retinue.config import option_lines


def option_tree() -> str:
    """Every option with default, unit and help, one per line."""
    return "".join(f"{line.key}={line.default}  [{line.unit}]  {line.help}\n" for line in option_lines())


if __name__ == "__main__":
    (Path(__file__).parent / "options.txt").write_text(option_tree())
