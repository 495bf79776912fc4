"""What is kept of a customer says the same as the customer's whole history."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from retinue.events.timeline import history, not_yet_known
from retinue.sequences.readouts import standing_of
from retinue.sequences.seen import Seen
from retinue.sequences.tokens import Tokens, tokens_of
from retinue.sequences.vocabulary import encode, fit_vocabulary
from tests.forecasting.shops import shop
from tests.sequences.made import at, readouts_at
from tests.sequences.made import tokens_of as stored_tokens


def taken(seen: Seen, tokens: Tokens) -> None:
    new = tokens.customer[~seen.rows_of(tokens.customer)[1]]
    seen.admit(new)
    seen.take(tokens, seen.rows_of(tokens.customer)[0])


def test_tokens_in_memory_are_those_of_the_store(tmp_path: Path) -> None:
    store = shop(tmp_path / "events", customers=30)
    stored, made = stored_tokens(store, tmp_path / "tokens"), tokens_of(store.scan(), "UTC")
    for field in fields(Tokens):
        if field.name not in ("fingerprint", "observation_end"):
            np.testing.assert_array_equal(getattr(made, field.name), getattr(stored, field.name))


def test_the_silence_of_a_readout_and_the_gaps_of_new_tokens_need_no_history(tmp_path: Path) -> None:
    store = shop(tmp_path / "events", customers=60)
    tokens = stored_tokens(store, tmp_path / "tokens")
    vocabulary = fit_vocabulary(tokens, at(200))
    seen = Seen.nobody()
    parts = [history(store.scan(), at(90))]
    parts += [not_yet_known(history(store.scan(), at(until)), at(until - 50)) for until in (140, 190)]
    first, second, third = (tokens_of(part, "UTC") for part in parts)
    taken(seen, first)
    taken(seen, second)
    rows, there = seen.rows_of(third.customer)
    assert 0 < there.sum() < len(there)
    seen.admit(third.customer[~there])
    rows = seen.rows_of(third.customer)[0]
    found = seen.encoded(third, rows, vocabulary)
    whole = encode(tokens, vocabulary)
    of_third = np.isin(tokens.available, third.available)
    assert of_third.sum() == len(third.kind)
    np.testing.assert_array_equal(found.gaps, whole.gaps[of_third])
    np.testing.assert_array_equal(found.age, whole.age[of_third])
    seen.take(third, rows)
    readouts = readouts_at(store, [at(190)], at(240))
    standing = standing_of(tokens, readouts, vocabulary.gap_days)
    silence = seen.silence(readouts.cutoff, seen.rows_of(readouts.customer)[0], vocabulary.gap_days)
    np.testing.assert_array_equal(silence, standing.silence)
    assert np.isnan(silence[:, 3]).any()
    assert not np.isnan(silence[:, 3]).all()


def test_a_customer_without_orders_has_none(tmp_path: Path) -> None:
    store = shop(tmp_path / "events", customers=10)
    tokens = tokens_of(store.scan(), "UTC")
    seen = Seen.nobody()
    taken(seen, replace(tokens, kinds=tuple("visit" if kind == "order" else kind for kind in tokens.kinds)))
    assert seen.orders.sum() == 0
    cutoff = np.full(len(seen.customer), int(tokens.available.max()) + 1)
    silence = seen.silence(cutoff, np.arange(len(seen.customer)), 1.0)
    assert np.isnan(silence[:, 2:]).all()
    assert np.isfinite(silence[:, :2]).all()
