"""One row of the quality table: level, topic, sentence and cure."""

from __future__ import annotations

from typing import Any

from retinue.schema import CURE, FINDING, LEVEL, TOPIC

PROBLEM, WARNING, FACT = "problem", "warning", "fact"


def finding(level: str, topic: str, text: str, cure: str | None = None) -> dict[str, Any]:
    """One row of the quality table."""
    return {str(LEVEL): level, str(TOPIC): topic, str(FINDING): text, str(CURE): cure}
