"""The private interfaces of cudf-polars 26.10, in this one file: does a query translate to cuDF? Needs no GPU."""

from __future__ import annotations

from typing import Any

import polars as pl


def translation_errors(query: pl.LazyFrame) -> list[str]:
    """What cuDF cannot run of the query, in words; empty where it would run as a whole."""
    from cudf_polars.dsl.translate import Translator

    visited: Any = query._ldf.visit()
    translator = Translator(visited, pl.GPUEngine(executor="in-memory", raise_on_fail=True))
    translator.translate_ir()
    return [f"{type(error).__name__}: {error}" for error in translator.errors]
