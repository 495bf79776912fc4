import json

from retinue.reporting.figures import Chart, Grid, colour, embedded, safe


def chart(text: str, value: float) -> Chart:
    trace = {"hovertext": [text], "y": [value], "marker": {"color": colour("accent")}}
    return Chart("key", "title", "caption", "alt", Grid((), ()), [trace], {})


def test_no_text_can_end_the_script_that_holds_the_figures() -> None:
    text = "</script><!-- & \u2028 \ud83d\ude00"
    written = str(embedded([chart(text, 1.0)]))
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written)["key"]["traces"][0]["hovertext"] == ["</script><!-- & \u2028 😀"]


def test_the_last_bits_of_a_sum_do_not_reach_the_page_and_the_undefined_is_null() -> None:
    assert embedded([chart("", 0.1 + 0.2)]) == embedded([chart("", 0.3)])
    assert json.loads(embedded([chart("", float("nan"))]))["key"]["traces"][0]["y"] == [None]


def test_hover_text_is_text() -> None:
    assert safe("<b>&lt;") == "&lt;b&gt;&amp;lt;"


def test_dollar_signs_are_not_taken_for_formulas() -> None:
    written = json.loads(embedded([chart("$1 to $2", 1.0)]))
    assert written["key"]["traces"][0]["hovertext"] == ["&#36;1 to &#36;2"]
