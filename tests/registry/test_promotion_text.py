"""The promotion history on MLflow's pages: the model's description and each version's card."""

import pytest

from latentrec.registry.model_card import MAX_DESCRIPTION
from latentrec.registry.promotion import promote, promotion_history, rollback
from latentrec.registry.promotion_text import PromotionEvent, model_description, version_description
from tests.fixtures.shop import decision

CARD = "# shop\n\n**Promotion gate:** passed\n\n## Gate\nfigures\n\n## Results\nmore figures\n"


def event(
    number: int, action: str, version: str, replaced: str | None, reason: str = "why"
) -> PromotionEvent:
    return PromotionEvent(
        number, action, "champion", version, replaced, reason, 1_795_811_057.0 + number, "user anna"
    )


EVENTS = [
    event(1, "promoted", "1", None),
    event(2, "refused", "2", "1", "refused: below | sasrec"),
    event(3, "moved", "3", "1"),
    event(4, "rolled_back", "1", "3", "complaints"),
]


def test_the_model_s_page_lists_every_event_newest_first_below_what_people_wrote():
    text = model_description("Owned by the shop's team.", EVENTS)
    assert text.startswith("Owned by the shop's team.\n\n## Promotions\n| time (UTC) |")
    rows = text.splitlines()[5:]
    assert rows[0].startswith("| 2026-11-27 20:24:21 | **rolled back** champion → version 1 (was version 3)")
    assert r"| refused: below \| sasrec |" in rows[2]
    assert "**refused** version 2, champion stays version 1" in rows[2]
    assert rows[3].endswith("**promoted** champion → version 1 | user anna | why |")
    assert model_description(text, EVENTS) == text, "written again, nothing is doubled"
    assert model_description(None, []) == ""


def test_a_version_s_card_says_what_became_of_it_and_keeps_its_verdict_and_sections():
    first = version_description(CARD, "1", EVENTS[:1])
    text = version_description(first, "1", EVENTS)
    assert text.startswith("# shop\n\n**Promotion gate:** passed\n\n## Promotions\n")
    assert text.count("## Promotions") == 1
    assert text.endswith("\n\n## Gate\nfigures\n\n## Results\nmore figures\n")
    assert "**rolled back** champion → version 1" in text
    assert "**moved by hand** champion → version 3 (was version 1)" in text
    assert "**refused**" not in text, "another version was, beside it"
    assert "**refused** version 2" in version_description(CARD, "2", EVENTS)


@pytest.mark.parametrize("count", [1, 40, 400])
def test_a_long_history_and_a_long_card_stay_within_mlflow_s_limit(count):
    card = CARD + "\n\n## Training\n" + "x" * 4700
    events = [event(n, "moved", str(n % 2), str((n + 1) % 2), "r" * 900) for n in range(count)]
    text = version_description(card, "1", events)
    assert len(text) <= MAX_DESCRIPTION
    assert text.endswith("*Shortened; the whole card is `artifacts/card.md` of this version.*\n")
    assert "## Results" in text
    assert len(model_description("own text", events)) <= MAX_DESCRIPTION


def test_promotion_refusal_and_two_rollbacks_are_on_mlflow_s_pages(register, tracked):
    register(decision())
    register(decision(promote=False, expected="1", reason="worse"))
    register(decision(expected="1"))
    promote("latentr3", "2", "trial")
    rollback("latentr3", "complaints")
    rollback("latentr3", "more complaints")
    assert [one.action for one in promotion_history("latentr3")][-2:] == ["rolled_back", "rolled_back"]
    page = tracked.client.get_registered_model("latentr3").description
    assert page.count("**rolled back**") == 2
    assert "**refused** version 2, champion stays version 1" in page
    card = tracked.client.get_model_version("latentr3", "1").description
    assert "**rolled back** champion → version 1 (was version 3) | " in card
    assert "more complaints" in card
    assert "## Intended use" in card


def test_a_page_that_cannot_be_written_spoils_no_promotion(register, tracked, monkeypatch, caplog):
    register(decision())

    def fails(*arguments):
        raise ConnectionError("away")

    monkeypatch.setattr("latentrec.registry.promotion.model_description", fails)
    register(decision(expected="1"))
    assert tracked.client.get_registered_model("latentr3").aliases["champion"] == 2
    assert [one.version for one in promotion_history("latentr3")] == ["1", "2"]
    assert "(away)" in caplog.text
