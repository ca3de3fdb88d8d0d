"""The next-item prompt: what is kept, what is dropped, and that a title has the same tokens everywhere."""

import pytest

from latentrec.models.presets import train_tokenizer
from latentrec.prompts import NextItemPrompt
from tests.errors import refused

TITLES = ["Yamaha Digital Piano", "Piano Bench, Black", "Guitar Strings & Picks", "Café “Crème” 12″"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f'"{title}"\n' for title in TITLES], 400)


def test_history_is_instruction_then_titles_oldest_first_then_lead_in(tokenizer):
    prompt = NextItemPrompt(tokenizer)
    text = tokenizer.decode(prompt.encode_history(TITLES))
    lines = "".join(f'"{title}"\n' for title in TITLES)
    assert text == prompt.instruction + lines + prompt.response


def test_target_is_the_history_line_and_the_end(tokenizer):
    prompt = NextItemPrompt(tokenizer)
    for title in TITLES:
        target = prompt.encode_target(title)
        assert target == [*prompt.history_lines([title])[0], tokenizer.eos_token_id]
        assert tokenizer.decode(target[:-1]) == f'"{title}"\n'


def test_only_the_newest_titles_stay(tokenizer):
    prompt = NextItemPrompt(tokenizer, max_history=2)
    assert prompt.encode_history(TITLES) == prompt.encode_history(TITLES[-2:])


def test_empty_history_still_asks(tokenizer):
    prompt = NextItemPrompt(tokenizer)
    assert prompt.encode_history([]) == prompt.prefix_ids + prompt.response_ids


def test_prompt_that_is_too_long_loses_its_oldest_titles_whole(tokenizer):
    whole = NextItemPrompt(tokenizer)
    longest = max(len(line) for line in whole.history_lines(TITLES))
    limit = len(whole.encode_history(TITLES)) - 1
    cut = NextItemPrompt(tokenizer, max_prompt_tokens=limit, max_title_tokens=longest)
    assert cut.encode_history(TITLES) == whole.encode_history(TITLES[1:])
    for smaller in range(len(whole.prefix_ids) + longest + len(whole.response_ids), limit):
        prompt = NextItemPrompt(tokenizer, max_prompt_tokens=smaller, max_title_tokens=longest)
        ids = prompt.encode_history(TITLES)
        assert len(ids) <= smaller
        assert ids[-len(prompt.response_ids) :] == prompt.response_ids
        assert len(ids) > len(prompt.prefix_ids) + len(prompt.response_ids)


def test_long_history_title_is_cut_and_long_target_refused(tokenizer):
    prompt = NextItemPrompt(tokenizer, max_title_tokens=4)
    assert len(prompt.history_lines([TITLES[0]])[0]) == 4
    with refused("prompt.title_too_long", "max_title_tokens"):
        prompt.encode_target("A title of very many words indeed")


def test_catalogue_with_long_titles_is_refused_with_the_cure(tokenizer):
    prompt = NextItemPrompt(tokenizer, max_title_tokens=5)
    with refused("prompt.title_too_long", "2", "max_title_tokens"):
        prompt.check_titles([TITLES[0], "Some words that are nowhere in the vocabulary"])


def test_limits_that_clash_are_refused(tokenizer):
    with refused("prompt.too_long", "max_prompt_tokens", "20"):
        NextItemPrompt(tokenizer, max_prompt_tokens=20)


def test_tokenizer_without_end_of_sequence_is_refused(tokenizer):
    class Endless:
        eos_token_id = None

    with refused("backbone.no_end_token", "eos_token"):
        NextItemPrompt(Endless())


def test_settings_rebuild_the_prompt(tokenizer):
    prompt = NextItemPrompt(tokenizer, max_history=3, max_title_tokens=20, instruction="Bought:\n")
    again = NextItemPrompt(tokenizer, **prompt.settings())
    assert again.encode_history(TITLES) == prompt.encode_history(TITLES)


@pytest.mark.parametrize("title", ["Capo <|endoftext|> deluxe", "<|endoftext|>", "a<|pad|>b"])
def test_a_special_token_in_a_title_is_read_as_its_letters(tokenizer, title):
    prompt = NextItemPrompt(tokenizer)
    special = set(tokenizer.all_special_ids)
    target = prompt.encode_target(title)
    assert special & set(target[:-1]) == set()
    assert tokenizer.decode(target[:-1]) == f'"{title}"\n'
    assert special & set(prompt.encode_history([title])) <= set(prompt.prefix_ids)
