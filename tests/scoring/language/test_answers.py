"""Numbers in words: canned answers of judges, good and bad, and no number out of nothing."""

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.language.answers import (
    FORMATS,
    NumberFormat,
    ParseError,
    number_format,
)

GOOD = {
    "final_score": [
        ("Final Score: 4.2", 4.2),
        ("The picture matches.\n\nFinal Score: 3", 3.0),
        ("<think>Alignment 2, style 5</think> **Final Score:** 4.25", 4.25),
        ("FINAL SCORE = 1", 1.0),
        ("Final score: 4.2. Again, the final score: 4.2", 4.2),
        ("Final Score: 5.\n", 5.0),
        ("Final Score: 4.2/5", 4.2),
    ],
    "hop": [
        ("<score>+12%</score>", 0.12),
        ("<score>-7.5%</score>", -0.075),
        ("The gripper closed on the lid. <score> 100 % </score>", 1.0),
        ("<score>0%</score>", 0.0),
    ],
    "score_tag": [("<score>7</score>", 7.0), ("Good. <SCORE> 9.5 </SCORE>", 9.5)],
    "number": [("8", 8.0), ("  7.5\n", 7.5), (".5", 0.5)],
}
BAD = {
    "final_score": [
        "", " ", "I cannot judge this image.", "Final Score:", "Final Score: high", "Score: 4.2",
        "Final Score: 4.2/x 17", "Final Score: 4/10", "Final Score: 4/50",
        "Final Score: 7", "Final Score: 0.5", "Final Score: -4",
        "Final Score: NaN", "Final Score: inf", "Final Score: 4 or Final Score: 3",
        "Final Score: four", "Final Score: 45", "Final Score: 84%", "Final Score: ", "4.2",
        "Final\x00Score", "Final Score: 1,234", "Final Score: 1e9", "final answer 3", "Final Scor",
        '{"score": 3}', "Final Score: [score]", "Final Score: <4.2>%", "Final Score: --3",
    ],
    "hop": [
        "", "<score>", "<score></score>", "<score>12</score>", "<score>%</score>", "+12%",
        "<score>12%", "12%</score>", "<score>abc%</score>", "<score>+120%</score>",
        "<score>-101%</score>", "<score>+1%</score><score>+2%</score>", "<score>1 2%</score>",
        "<score>12%%</score>", "<score>twelve%</score>", "score: 12%", "<scores>12%</scores>",
        "<score>+-12%</score>", "<score>1e1%</score>", "<score>NaN%</score>", "<score>∞%</score>",
        "<score>±12%</score>", "<score>12％</score>", "<think>...", "<score>0,5%</score>",
    ],
    "score_tag": [
        "", "<score>7", "7</score>", "<score>seven</score>", "<score>11</score>",
        "<score>-1</score>",
        "<score>7/10</score>", "<score>7</score><score>8</score>", "score 7", "<score>7%</score>",
        "<score>7,5</score>", "<score>\n</score>", "<score>None</score>", "<score>null</score>",
        "<score>1e400</score>", "<score>0x7</score>", "<score>7 8</score>", "[7]",
        "<score>NaN</score>",
    ],
    "number": [
        "", "eight", "8/10", "8 of 10", "The score is 8", "8!", "-1", "10.5", "8 9", "inf", "nan",
        "0x8", "8e0", "８.", "8%", "+", ".", "1.2.3", "1,5", "```8```",
    ],
}  # fmt: skip
BAD_JSON = [
    "", "{", "{}", "[]", "null", "4", '{"score"}', '{"score": }', '{"score": "4"}',
    '{"score": null}', '{"score": true}', '{"score": [4]}', '{"score": {"a": 4}}', '{"Score": 4}',
    '{"score": NaN}', '{"score": Infinity}', '{"score": 1e400}', '{"score": 11}', '{"score": -1}',
    '{"score": 4', "{'score': 4}", '{"score": 4} {"score": 5}', '{"score": 4,5}', "score: 4",
    '[{"a": 1}]', '{"score": "high"}', "{" * 5000, '{"a": {"score": 4}}',
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_answers_as_they_should_be(name):
    for answer, value in GOOD[name]:
        assert number_format(name).parse(answer) == pytest.approx(value), answer


def test_more_than_a_hundred_broken_answers_and_not_one_number():
    cases = [(number_format(name), answer) for name, answers in BAD.items() for answer in answers]
    cases += [(NumberFormat(key="score"), answer) for answer in BAD_JSON]
    assert len(cases) > 100
    for form, answer in cases:
        with pytest.raises(ParseError):
            print(f"{form} accepted {answer!r} as {form.parse(answer)}")


def test_json_is_found_in_fences_and_prose_and_by_path():
    form = NumberFormat(key="score", high=10)
    assert form.parse('{"score": 7}') == 7
    assert form.parse('Sure!\n```json\n{"why": "a {brace}", "score": 7.5}\n```') == 7.5
    assert form.parse('{"score": 3} as I said: {"score": 3}') == 3
    assert NumberFormat(key="scores.overall").parse('{"scores": {"overall": 2}}') == 2
    with pytest.raises(ParseError, match="no number"):
        form.parse('{"score": true}')


@given(st.text(string.printable, max_size=80))
def test_whatever_is_written_the_result_is_in_range_or_an_error(text):
    for name, (_, _, low, high) in FORMATS.items():
        with contextlib.suppress(ParseError):
            assert low <= number_format(name).parse(text) <= high


def test_formats_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="final_score"):
        number_format("final_scor")
    for bad in ({}, {"pattern": "(", "key": ""}, {"pattern": "a"}, {"pattern": "(a)", "key": "b"}):
        with pytest.raises(ConfigError):
            NumberFormat(**bad)
    with pytest.raises(ConfigError, match="below"):
        NumberFormat(key="a", low=2, high=1)
