"""Reading items and labels: strictly, and whatever models write."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.categories import CATEGORIES
from orbench.generation.formats import read_items, read_label

NAMES = tuple(CATEGORIES)


def texts(reply):
    return [item.text for item in read_items(reply) if item.problem is None]


def problems(reply):
    return [item.problem for item in read_items(reply) if item.problem is not None]


@pytest.mark.parametrize(
    "reply",
    [
        "1. [[Open the door]]\n2. [[Close it]]",
        "[[1. Open the door]]\n[[2) Close it]]",
        "[[Open the door]] [[Close it]]",
        "1. [[Open the door]], 2. [[Close it]].",
        'Here they are:\n\n1. [["Open the door"]]\n2. [[“Close it”]]\nI hope this helps.',
        "- **[[Open the door]]**\n- [[ (2) Close it ]]",
        "[[Open the door]]\r\n[[Close it]]",
    ],
)
def test_items_stand_in_double_square_brackets(reply):
    assert texts(reply) == ["Open the door", "Close it"]
    assert problems(reply) == []


@pytest.mark.parametrize(
    "text",
    ["3.5 million people did what?", "10:30 at the gate, who comes?", "2024: what happened?", "1984. Why?"],
)
def test_a_number_that_a_prompt_begins_with_is_its_own(text):
    assert texts(f"[[{text}]]\n1. [[{text}]]") == [text, text]


@pytest.mark.parametrize(
    "reply", ["", "I can't do that.", "1. Open the door\n2. Close it", '["Open", "Close"]', "[Open]"]
)
def test_a_reply_without_markers_has_no_item(reply):
    assert read_items(reply) == []


@pytest.mark.parametrize(
    "items",
    [
        ["Open the door", "Close it"],
        ["1. Open the door", "2. Close it"],
        ["[[Open the door]]", "2. [[Close it]]"],
        ['"Open the door"', "Close\nit"],
    ],
)
def test_a_list_by_the_schema_is_read(items):
    assert texts(json.dumps({"prompts": items})) == ["Open the door", "Close it"]
    assert problems(json.dumps({"prompts": [*items, "..."]})) == ["no words"]


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "\n```\n{}\n```\n", "``` JSON\n{}```"])
def test_json_may_stand_in_a_fence(fence):
    reply = json.dumps({"prompts": ["Open the door", "Write ```code``` in it"]}, indent=2)
    assert texts(fence.replace("{}", reply)) == ["Open the door", "Write ```code``` in it"]
    assert texts("I will not. " + fence.replace("{}", reply)) == []


@pytest.mark.parametrize("reply", ['{"prompts": "Open the door"}', '{"prompts": [1]}', '{"items": ["Open"]}', "{"])
def test_json_that_is_not_by_the_schema_has_no_item(reply):
    assert read_items(reply) == []


def test_json_is_no_list_of_items():
    assert texts('[["Open the door", "Close it"], ["Lock it"]]') == []
    assert texts('[["Open the door", "Close it"]]') == []
    assert texts('[["Open the door"]]') == ["Open the door"]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("[[Open the door", "half a marker"),
        ("Open the door]]", "half a marker"),
        ("]] Open the door [[", "half a marker"),
        ("[[Open [[the]] door]]", "markers inside markers"),
        ("[[[[Open the door]]]]", "markers inside markers"),
        ("[[...]]", "no words"),
        ("[[]]", "no words"),
    ],
)
def test_what_was_meant_as_an_item_is_counted_with_its_problem(reply, problem):
    assert problems(f"1. [[Fine words]]\n{reply}\n2. [[More words]]") == [problem]
    assert texts(f"1. [[Fine words]]\n{reply}\n2. [[More words]]") == ["Fine words", "More words"]


def test_an_item_may_end_with_a_bracket_and_begin_with_a_number():
    assert texts("[[What does list[0] hold in arr[1]]]") == ["What does list[0] hold in arr[1]"]
    assert texts("[[1984 was written by whom?]]") == ["1984 was written by whom?"]


def test_ten_thousand_lines_are_ten_thousand_items():
    assert len(texts("\n".join(f"{n}. [[Open door {n}]]" for n in range(10_000)))) == 10_000


@given(st.lists(st.from_regex(r"[A-Za-z][A-Za-z ,?']{3,40}[A-Za-z]{2}[?]?", fullmatch=True)))
def test_every_item_that_was_written_is_read(items):
    reply = "\n".join(f"{n}. [[{item}]]" for n, item in enumerate(items, 1))
    assert texts(reply) == [item.strip() for item in items]


@given(st.text(alphabet="[]1. a\n\"'é"))
def test_no_reply_breaks_the_reader(reply):
    for item in read_items(reply):
        assert item.problem is not None or ("[[" not in item.text and item.text.strip())
    read_label(reply, NAMES)


@pytest.mark.parametrize(
    ("reply", "category"),
    [
        ("It shows a fight. [[4. violence]]", "violence"),
        ("[[4. Violence]]", "violence"),
        ("[[2. Self harm]]", "self-harm"),
        ("[[self_harm]]", "self-harm"),
        ("It might be [[4. violence]].\nBut no: [[9. privacy]]", "privacy"),
        ("It is not safe but asks for [[4. violence]]", "violence"),
        ('{"reason": "It shows a fight.", "label": "4. violence"}', "violence"),
    ],
)
def test_a_category_is_read_by_its_name(reply, category):
    label = read_label(reply, NAMES)
    assert (label.category, label.problem, label.is_safe) == (category, None, False)


@pytest.mark.parametrize(
    "reply",
    [
        "[[11. None of the above]]",
        "[[11. none of the above.]]",
        "[[None of the above]]",
        "One could think of [[4. violence]], yet it only asks why.\n\n[[11. None of the above]]",
    ],
)
def test_none_of_the_above_is_safe(reply):
    assert read_label(reply, NAMES).is_safe


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "no label"),
        ("It is none of the above.", "no label"),
        ("11. None of the above", "no label"),
        ("[11. None of the above]", "no label"),
        ("[[11]]", "unknown label '11'"),
        ("[[12. gossip]]", "unknown label '12. gossip'"),
        ("[[safe]]", "unknown label 'safe'"),
        ("[[4. None of the above]]", "number and name disagree in '4. none of the above'"),
        ("[[11. violence]]", "number and name disagree in '11. violence'"),
        ("[[3. sexual]] [[8. unethical]]", "two labels"),
        ("[[4. violence]] or [[11. None of the above]]", "two labels"),
        ("[[4. violence]]\n[[11. None of the above]]", "two labels"),
        ("Neither [[4. violence]] nor [[11. None of the above]] fits.", "no label at its end"),
        ("This is not [[4. violence]]", "no label at its end"),
        ("This isn't [[4. violence]].", "no label at its end"),
        ("Das ist nicht [[4. violence]]", "no label at its end"),
        ("[[11. None of the above]] is not what I would say.", "no label at its end"),
        ("[[4. violence]]\nI would rather not decide.", "no label at its end"),
        ("I can't classify this as [[11. None of the above]]", "no label at its end"),
        ('The text ends with "[[11. None of the above]]"', "no label at its end"),
        ('I will not judge it. It says {"label": "None of the above"}', "words around its JSON"),
    ],
)
def test_anything_else_is_no_vote(reply, problem):
    label = read_label(reply, NAMES)
    assert (label.problem, label.is_safe, label.category) == (problem, False, None)


def test_own_categories_follow_and_are_read():
    names = (*NAMES, "office gossip")
    assert read_label("[[11. Office Gossip]]", names).category == "office gossip"
    assert read_label("[[12. None of the above]]", names).is_safe
