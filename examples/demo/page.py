"""The page: search a title, build a history, read what each model makes of it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from examples.demo import panels
from examples.demo.models import Stage, rate

STARS = [5.0, 4.0, 3.0, 2.0, 1.0]


def build(stage: Stage) -> gr.Blocks:
    """The page over loaded models; it holds no state but what the browser sends."""
    rating = bool(stage.raters)
    with gr.Blocks(title=f"Try {stage.name}", analytics_enabled=False) as page:
        gr.Markdown(f"# Try {stage.name}\n{_lead(rating)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                query = gr.Textbox(label="Search a title", placeholder="a few letters of it", elem_id="query")
                stars = gr.Radio(STARS, value=5.0, label="Rated", visible=rating, elem_id="stars")
                found = gr.Radio([], label="Click to add it to the history", elem_id="found")
                history = gr.CheckboxGroup(
                    [], label="History, oldest first (untick to remove)", elem_id="history"
                )
                with gr.Row():
                    popular = gr.Button("Start from popular items", size="sm")
                    clear = gr.Button("Clear", size="sm")
                target = gr.Dropdown(
                    _choices(stage), label="Item to rate", visible=rating, elem_id="target", filterable=True
                )
                k = gr.Slider(1, 20, 10, step=1, label="How many", visible=not rating, elem_id="k")
            with gr.Column(scale=5, min_width=320):
                answers = gr.HTML(_hint(), elem_id="answers")

        # always_last: by default an event is dropped while the one before is at work, and whoever types fast
        # would see what was found for the first letter.
        query.input(
            lambda text: gr.Radio(choices=stage.search(text), value=None),
            query,
            found,
            trigger_mode="always_last",
        )
        found.input(
            lambda key, held, given: _added(stage, held, [(key, given)]),
            [found, history, stars],
            [history, found],
        )
        popular.click(
            lambda given: _added(stage, [], [(key, given) for key in list(stage.titles)[:3]]),
            stars,
            [history, found],
        )
        clear.click(lambda: _added(stage, [], []), None, [history, found])
        history.input(lambda held: _added(stage, held, [])[0], history, history)
        show = _show_ratings(stage) if rating else _show_recommendations(stage)
        changing: list[Any] = [history, target] if rating else [history, k]
        gr.on([part.change for part in changing], show, changing, answers, trigger_mode="always_last")
    return page


def _lead(rating: bool) -> str:
    if rating:
        return "Rate a few items, choose another, and read how the model would rate it and why."
    return "Put a few items into the history and compare what the models recommend next."


def _hint() -> str:
    return '<p class="soft">Search a title and click it, or start from popular items.</p>'


def _choices(stage: Stage) -> list[tuple[str, str]]:
    return [(title, key) for key, title in stage.titles.items()][:2000]


def _added(stage: Stage, held: list[str], new: list[tuple[str | None, float]]) -> tuple[Any, Any]:
    """The history with further items; an entry is ``key`` and its stars, so that one item may come twice."""
    after = max((int(entry.split("\t")[2]) for entry in held), default=-1) + 1
    fresh = [f"{key}\t{given:g}\t{after + place}" for place, (key, given) in enumerate(new) if key]
    entries = [*held, *fresh]
    shown = [(_label(stage, entry), entry) for entry in entries]
    return gr.CheckboxGroup(choices=shown, value=entries), gr.Radio(value=None)


def _label(stage: Stage, entry: str) -> str:
    key, given, _ = entry.split("\t")
    title = stage.titles.get(key, key)
    return f"{title} · {given} ★" if stage.raters else title


def _show_recommendations(stage: Stage) -> Any:
    def show(held: list[str], k: float) -> str:
        keys = [entry.split("\t")[0] for entry in held if entry.split("\t")[0] in stage.titles]
        if not keys:
            return _hint()
        answers = [(contender, contender.recommend(keys, int(k))) for contender in stage.contenders]
        return panels.recommendations(answers, stage.missing)

    return show


def _show_ratings(stage: Stage) -> Any:
    def show(held: list[str], target: str | None) -> str:
        entries = [entry.split("\t") for entry in held if entry.split("\t")[0] in stage.titles]
        if not entries or target not in stage.titles:
            return '<p class="soft">Rate a few items, then choose the item to rate.</p>'
        keys, given = [entry[0] for entry in entries], [float(entry[1]) for entry in entries]
        rows = []
        for rater in stage.raters:
            answer, milliseconds = rate(rater, keys, given, target)
            rows.append((rater.role, rater.detail, f"{answer.rating:.2f} ★", answer.reasoning, milliseconds))
        mean = sum(given) / len(given)
        rows.insert(1, ("user mean", "the mean of the ratings at the left", f"{mean:.2f} ★", "", -1.0))
        return panels.ratings(rows, stage.missing)

    return show
