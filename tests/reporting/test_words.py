import pytest

from retinue.reporting.words import Money, count, days, number, plural, share


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "£0"),
        (3.5, "£3.50"),
        (99.999, "£100"),
        (1234.4, "£1,234"),
        (-12.5, "−£12.50"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_money_has_sign_separators_and_cents_only_when_small(value: float | None, told: str) -> None:
    assert Money("GBP").full(value) == told


def test_money_of_an_unknown_code_is_named_and_of_no_code_is_bare() -> None:
    assert Money("CHF").full(1234.0) == "CHF\N{NO-BREAK SPACE}1,234"
    assert Money("").full(1234.0) == "1,234"
    assert Money("<b>X</b>").full(1.0) == "bXb\N{NO-BREAK SPACE}1.00"
    assert Money("").unit == "account currency"


def test_headline_money_says_millions_and_rounds_into_the_next_word() -> None:
    assert Money("EUR").short(12_345_678) == "€12.35M"
    assert Money("EUR").short(999_900_000) == "€1.00bn"
    assert Money("EUR").short(999_000) == "€999,000"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "0.0%"),
        (0.0001, "<0.1%"),
        (0.052, "5.2%"),
        (0.62, "62%"),
        (0.996, "99.6%"),
        (1.0, "100%"),
        (-0.13, "−13%"),
        (None, "–"),
    ],
)
def test_few_never_reads_as_none_and_nearly_all_not_as_all(value: float | None, told: str) -> None:
    assert share(value) == told


def test_counts_and_days() -> None:
    assert count(61_402) == "61,402"
    assert count(-0.2) == "0"
    assert plural(1, "customer") == "1 customer"
    assert plural(2_000, "customer") == "2,000 customers"
    assert days(None) == "–"
    assert number(1.5, 3) == "1.500"
