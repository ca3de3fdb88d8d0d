"""Every way for an answer to be wrong, and that nothing wrong is ever paid for."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentrec.prompts.rating_format import (
    FAULTS,
    TAGS,
    FormatFault,
    RatingAnswer,
    RatingScale,
    parse_answer,
    render_answer,
)
from latentrec.training.rating.rewards import RatingReward, answer_reward, format_reward, reward_functions
from tests.errors import refused

GOOD = render_answer("likes cards", "a gift card", "fits", 4.5)
SECTION = {
    "user": "<analyze user>u</analyze user>",
    "item": "<analyze item>i</analyze item>",
    "match": "<match>m</match>",
}


def answer(rate: str, user="u", item="i", match="m") -> str:
    return (
        f"<analyze user>{user}</analyze user> <analyze item>{item}</analyze item> "
        f"<match>{match}</match> <rate>{rate}</rate>"
    )


WRONG = {
    "empty text": ("", "missing_tag"),
    "prose only": ("I would say 4.5", "missing_tag"),
    "bare number": ("4.5", "missing_tag"),
    "no user section": (f"{SECTION['item']}{SECTION['match']}<rate>4</rate>", "missing_tag"),
    "no rate section": (f"{SECTION['user']}{SECTION['item']}{SECTION['match']}", "missing_tag"),
    "rate not closed": (answer("4").removesuffix("</rate>"), "missing_tag"),
    "user not opened": (answer("4").removeprefix("<analyze user>"), "missing_tag"),
    "other case": (answer("4").replace("rate>", "Rate>"), "missing_tag"),
    "space in tag": (answer("4").replace("<rate>", "< rate>"), "missing_tag"),
    "underscore in tag": (answer("4").replace("analyze user", "analyze_user"), "missing_tag"),
    "section twice": (answer("4").replace(SECTION["match"], SECTION["match"] * 2), "repeated_tag"),
    "rate twice": (answer("4") + "<rate>5</rate>", "repeated_tag"),
    "whole answer twice": (answer("4") + answer("4"), "repeated_tag"),
    "closed twice": (answer("4") + "</rate>", "repeated_tag"),
    "nested": (
        f"<analyze user>u{SECTION['item']}</analyze user>{SECTION['match']}<rate>4</rate>",
        "nested_tag",
    ),
    "nested in itself": (answer("<rate>4</rate>"), "nested_tag"),
    "crossed": (
        "<analyze user>u<analyze item></analyze user>i</analyze item><match>m</match><rate>4</rate>",
        "nested_tag",
    ),
    "item before user": (
        f"{SECTION['item']}{SECTION['user']}{SECTION['match']}<rate>4</rate>",
        "wrong_order",
    ),
    "rate first": (f"<rate>4</rate>{SECTION['user']}{SECTION['item']}{SECTION['match']}", "wrong_order"),
    "closed before opened": (
        answer("4").replace("<match>m</match>", "</match>m<match>"),
        "nested_tag",
    ),
    "empty user": (answer("4", user=""), "empty_section"),
    "blank item": (answer("4", item=" \n\t "), "empty_section"),
    "empty match": (answer("4", match=""), "empty_section"),
    "empty rate": (answer(""), "empty_section"),
    "text before": ("Sure! " + answer("4"), "text_outside"),
    "text between": (answer("4").replace("</match> ", "</match> so "), "text_outside"),
    "text after the rating": (answer("4") + " I hope that helps", "text_outside"),
    "number after the rating": (answer("4") + " 5", "text_outside"),
    "comma": (answer("4,5"), "not_a_number"),
    "fraction": (answer("5/5"), "not_a_number"),
    "out of five": (answer("4 out of 5"), "not_a_number"),
    "stars": (answer("★★★★"), "not_a_number"),
    "unit": (answer("4 stars"), "not_a_number"),
    "word": (answer("four"), "not_a_number"),
    "NaN": (answer("NaN"), "not_a_number"),
    "infinity": (answer("inf"), "not_a_number"),
    "exponent": (answer("4e0"), "not_a_number"),
    "hexadecimal": (answer("0x4"), "not_a_number"),
    "plus": (answer("+4"), "not_a_number"),
    "minus": (answer("-4"), "not_a_number"),
    "no digit before the point": (answer(".5"), "not_a_number"),
    "no digit after the point": (answer("4."), "not_a_number"),
    "two points": (answer("4.5.1"), "not_a_number"),
    "two numbers": (answer("4 5"), "not_a_number"),
    "a range": (answer("4-5"), "not_a_number"),
    "underscored digits": (answer("4_0"), "not_a_number"),
    "Arabic digit": (answer("٤"), "not_a_number"),
    "fullwidth digit": (answer("\uff14"), "not_a_number"),
    "too long": (answer("4" * 400), "not_a_number"),
    "zero": (answer("0"), "out_of_scale"),
    "just below": (answer("0.9"), "out_of_scale"),
    "just above": (answer("5.1"), "out_of_scale"),
    "percent scale": (answer("90"), "out_of_scale"),
}


@pytest.mark.parametrize(("text", "kind"), WRONG.values(), ids=WRONG.keys())
def test_wrong_answer_is_refused_with_its_reason_and_earns_the_penalty(text, kind):
    fault = parse_answer(text)
    assert isinstance(fault, FormatFault)
    assert fault.kind == kind
    assert RatingReward().total(text, truth=4.0) == -0.5


def test_every_fault_has_a_case():
    assert {kind for _, kind in WRONG.values()} == set(FAULTS)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        (GOOD, 4.5),
        (answer("4"), 4.0),
        (answer("1"), 1.0),
        (answer("5.0"), 5.0),
        (answer("3.25"), 3.25),
        (answer(" 4.5 "), 4.5),
        ("\n" + answer("4").replace("> <", ">\n\n<") + "\n", 4.0),
        (answer("4").replace("> <", "><"), 4.0),
        (answer("4", user="a < b and c > d, 5/5 stars"), 4.0),
    ],
)
def test_valid_answer_is_read(text, rating):
    parsed = parse_answer(text)
    assert isinstance(parsed, RatingAnswer)
    assert parsed.rating == rating


def test_sections_are_kept_as_reasoning():
    parsed = parse_answer(GOOD)
    assert parsed.reasoning == "user: likes cards\nitem: a gift card\nmatch: fits"


def test_scale_decides_what_is_out_of_scale():
    assert isinstance(parse_answer(answer("9"), RatingScale(0, 10)), RatingAnswer)
    assert parse_answer(answer("9"), RatingScale(1, 5)).kind == "out_of_scale"


def test_render_refuses_what_could_not_be_read_back():
    with refused("prompt.bad_section", "<match>"):
        render_answer("u", "i", "", 4)
    with refused("prompt.bad_section"):
        render_answer("u <rate>5</rate>", "i", "m", 4)


def test_reward_is_the_papers_formula():
    reward = RatingReward()
    assert reward.total(GOOD, truth=4.5) == reward.maximum == 1.5
    assert reward.total(GOOD, truth=2.5) == pytest.approx(0.5 + 1 - 2 / 4)
    assert reward.total(answer("1"), truth=5.0) == pytest.approx(0.5)


def test_constants_of_the_published_code_can_be_set():
    reward = RatingReward(valid=1.0, invalid=-1.0, max_error=2.0)
    assert reward.total(answer("1"), truth=5.0) == pytest.approx(1.0 + 1 - 4 / 2)
    assert reward.total("nonsense", truth=5.0) == -1.0


def test_constants_that_would_pay_for_broken_answers_are_refused():
    with refused("config.conflict"):
        RatingReward(valid=-1, invalid=1)
    with refused("config.bad_value", "max_error", "0"):
        RatingReward(max_error=0)


def test_parts_are_logged_on_their_own():
    logged = {}
    texts = [GOOD, "nonsense"]
    assert format_reward(completions=texts, prompts=["", ""]) == [0.5, -0.5]
    assert answer_reward(completions=texts, rating=[4.0, 4.0], log_metric=logged.__setitem__) == [0.875, 0.0]
    assert logged == {"format_valid": 0.5, "abs_error": 0.5}
    assert [function.__name__ for function in reward_functions(RatingReward())] == [
        "format_reward",
        "answer_reward",
    ]


def test_conversational_completions_are_understood():
    messages = [[{"role": "assistant", "content": GOOD}], [{"role": "assistant", "content": None}]]
    assert format_reward(completions=messages) == [0.5, -0.5]


PIECES = st.sampled_from(
    [*TAGS, "4", ".", "5", "4.5", " ", "text", "\n", "9", "NaN", "<", ">", "/", "<rate", "\0"]
)
FUZZ = st.one_of(
    st.text(max_size=200),
    st.lists(PIECES, max_size=24).map("".join),
    st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=8)).map(
        lambda parts: answer(parts[2], user=parts[0], item=parts[1])
    ),
)


@settings(max_examples=1500, deadline=None)
@given(text=FUZZ, truth=st.floats(1, 5))
def test_no_text_crashes_the_parser_or_earns_more_than_the_maximum(text, truth):
    reward = RatingReward()
    earned = reward.total(text, truth)
    assert -0.5 <= earned <= reward.maximum
    parsed = parse_answer(text)
    if isinstance(parsed, RatingAnswer):
        assert earned == pytest.approx(0.5 + 1 - abs(truth - parsed.rating) / 4)
        assert 1 <= parsed.rating <= 5
    else:
        assert parsed.kind in FAULTS
        assert earned == -0.5


def test_long_hostile_texts_take_linear_time():
    start = time.process_time()
    for text in ("<" * 300_000, "<rate>" * 50_000, "<analyze user>" + " " * 300_000, answer("4" * 300_000)):
        assert isinstance(parse_answer(text), FormatFault)
    assert time.process_time() - start < 2.0
