"""The comparison of shown with printed output: what may differ does, what may not is told."""

import pytest

from tests.docs.printed import differences, rewritten

TITLES = {"B0AAAAAAAA": "Falken Capo", "B0BBBBBBBB": "Falken Capo Pro", "B0CCCCCCCC": "Corvina Strap"}
PRINTED = """latentr3-sample version 1, after 2 items
     item            score  title
  1  B0BBBBBBBB    -0.5370  Falken Capo Pro
  2  B0CCCCCCCC    -2.6954  Corvina Strap
"""


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (PRINTED, ""),
        (PRINTED.replace("-0.5370", "-1.25"), ""),
        (PRINTED.replace("B0BBBBBBBB    -0.5370  Falken Capo Pro", "B0AAAAAAAA  -0.1  Falken Capo"), ""),
        ("latentr3-sample version …\n  1  B0AAAAAAAA  -3.1  Falken Capo\n", ""),
        (PRINTED.replace("version 1", "version 3"), "no line printed"),
        (PRINTED.replace("score  title", "title  score"), "no line printed"),
        (PRINTED.replace("B0BBBBBBBB", "B0AAAAAAAA"), "is 'Falken Capo', not 'Falken Capo Pro'"),
        (PRINTED.replace("B0BBBBBBBB", "B0DDDDDDDD"), "no item of the shop"),
        (PRINTED.replace("Falken Capo Pro", "Falken Guitar"), "no line printed"),
        (PRINTED + "  3  B0AAAAAAAA  -9.0  Falken Capo\n", "no line printed"),
    ],
)
def test_form_counts_and_figures_do_not(shown, why):
    found = "; ".join(differences(shown, PRINTED, TITLES))
    assert bool(found) == bool(why)
    assert why in found


def test_times_runs_and_figures_may_differ():
    shown = (
        "1  2026-11-21 09:10:34  promoted  version 1, by latentr3-20261121-090512-5f0c1e: 0.5 over 12 users\n"
    )
    today = (
        "1  2027-01-02 19:10:34  promoted  version 1, by latentr3-20270102-190512-0f0c1f: 0.7 over 19 users\n"
    )
    assert differences(shown, today, {}) == []
    assert differences(shown, today.replace("promoted", "refused"), {}) != []


def test_a_page_is_written_again_where_it_shows_the_whole():
    page = f"before\n```\n{PRINTED}```\nafter\n"
    assert rewritten(page, PRINTED, "today\n\n") == "before\n```\ntoday\n```\nafter\n"
    cut = "latentr3-sample …\n"
    assert rewritten(f"```\n{cut}```\n", cut, "today\n") == f"```\n{cut}```\n"
