"""Indices, units and bins of training time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.sequences.tokens import Tokens
from retinue.sequences.vocabulary import MOST_CODES, Vocabulary, encode, fit_vocabulary
from tests.forecasting.shops import shop, stored
from tests.sequences.made import at, tokens_of


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    folder = tmp_path_factory.mktemp("vocabulary")
    return tokens_of(shop(folder / "events", customers=80, days=200), folder / "tokens")


def with_codes(tokens: Tokens, codes: np.ndarray) -> Tokens:
    return replace(tokens, codes=codes[:, None].astype(np.uint32), fields=("channel",))


def test_a_worked_base(tmp_path: Path) -> None:
    rows = [
        (1, 0, 0, "order", 10.0),
        (1, 4, 4, "order", 30.0),
        (1, 5, 7, "refund", -20.0),
        (2, 1, 1, "order", 20.0),
    ]
    late = [(2, 8, 8, "visit", None), (2, 9, 9, "order", 9e9)]
    frame = pl.DataFrame(
        rows + late, schema=["customer", "event", "known", "event_type", "amount"], orient="row"
    )
    tokens = tokens_of(stored(frame, tmp_path / "events", 10), tmp_path / "tokens")
    vocabulary = fit_vocabulary(tokens, at(7.5))
    assert vocabulary.kinds == ("order", "refund")  # the visit is later
    assert vocabulary.order_value == 20.0
    assert vocabulary.gap_days == pytest.approx(3.5)  # 4 and 3
    coded = encode(tokens, vocabulary)
    assert coded.kind.tolist() == [1, 1, 2, 1, 0, 1]
    np.testing.assert_allclose(coded.numbers[:4, 0], np.log1p([0.5, 1.5, 1, 1]) * [1, 1, -1, 1], rtol=1e-6)
    np.testing.assert_allclose(coded.gaps[:3, 0], np.log1p([0, 4, 3]), rtol=1e-6)
    np.testing.assert_allclose(coded.gaps[:3, 1], np.log(np.array([0, 4, 3]) / 3.5 + 0.02), rtol=1e-5)
    np.testing.assert_allclose(coded.gaps[:4, 2], np.log1p([0, 0, 2, 0]), rtol=1e-6)
    np.testing.assert_allclose(coded.age[:4], np.log1p([0, 4, 7, 0]), rtol=1e-6)


def test_later_events_change_nothing(tokens: Tokens) -> None:
    end = at(120)
    before = fit_vocabulary(tokens, end)
    later = tokens.available > int(end.timestamp() * 1e6)
    assert 0 < later.sum() < len(later)
    money = np.where(later, 1e6, tokens.money)
    numbers = np.where(later[:, None], np.float32(1e6), tokens.numbers)
    kind = np.where(later, tokens.kinds.index("refund"), tokens.kind).astype(np.int16)
    assert fit_vocabulary(replace(tokens, money=money, numbers=numbers, kind=kind), end) == before
    assert fit_vocabulary(replace(tokens, money=money, numbers=numbers, kind=kind), at(200)) != before


def test_json_gives_it_back(tokens: Tokens) -> None:
    vocabulary = fit_vocabulary(tokens, at(150))
    assert len(vocabulary.edges[0]) > 5
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.as_dict()))) == vocabulary


def test_amounts_times_a_hundred_look_the_same(tokens: Tokens) -> None:
    dear = replace(tokens, money=tokens.money * 100, numbers=tokens.numbers * np.float32(100))
    cheap = encode(tokens, fit_vocabulary(tokens, at(150)))
    np.testing.assert_allclose(encode(dear, fit_vocabulary(dear, at(150))).numbers, cheap.numbers, rtol=1e-5)
    assert np.nanstd(cheap.numbers) > 0.1


def test_labels_are_ranked_by_frequency_and_new_ones_are_unknown(tokens: Tokens) -> None:
    n = len(tokens.kind)
    codes = np.array([500, 7, 7, 7, 500, 30])[np.arange(n) % 6]
    vocabulary = fit_vocabulary(with_codes(tokens, codes), at(1000))
    assert vocabulary.codes == ((7, 500, 30),)
    assert vocabulary.code_counts == (4,)
    new = with_codes(tokens, np.array([0, 7, 500, 30, 8, 4_000_000_000])[np.arange(n) % 6])
    assert encode(new, vocabulary).codes[:6, 0].tolist() == [0, 1, 2, 3, 0, 0]


def test_many_labels_share_buckets(tokens: Tokens) -> None:
    n = MOST_CODES + 1
    wide = Tokens(
        **{
            **tokens.__dict__,
            "kind": np.zeros(n, np.int16), "log_gap": np.zeros(n, np.float32), "available": np.zeros(n, np.int64),
            "event": np.zeros(n, np.int64), "money": np.ones(n), "numbers": np.ones((n, 1), np.float32),
            "codes": np.arange(1, n + 1, dtype=np.uint32)[:, None], "fields": ("product",),
            "customer": np.array([1]), "offsets": np.array([0, n]), "calendar": np.zeros((n, 6), np.float32),
        }
    )  # fmt: skip
    vocabulary = fit_vocabulary(wide, at(1))
    assert vocabulary.codes == ((),)
    assert vocabulary.code_counts == (MOST_CODES + 1,)
    coded = encode(wide, vocabulary).codes[:, 0]
    assert coded.min() == 1
    assert coded.max() == MOST_CODES


def test_another_base_without_some_columns_fits_the_same_vocabulary(tokens: Tokens) -> None:
    vocabulary = fit_vocabulary(with_codes(tokens, np.ones(len(tokens.kind))), at(150))
    bare = encode(replace(tokens, kinds=tuple(k + "?" for k in tokens.kinds)), vocabulary)
    assert bare.codes.shape == (len(tokens.kind), 1)
    assert not bare.codes.any()
    assert not bare.kind.any()
