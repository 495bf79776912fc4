"""Writes docs/features.md from the catalogue: python scripts/features_page.py."""

from pathlib import Path

from retinue.features.query import catalogue_markdown

if __name__ == "__main__":
    page = Path(__file__).parents[1] / "docs" / "features.md"
    page.write_text(catalogue_markdown(), encoding="utf-8")
