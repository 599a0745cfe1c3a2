"""What counts as the same number, unit, name and code, and what does not."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.evaluation import facts
from rag.evaluation.facts import demands, evidence, is_met
from tests.benchmarks.common_words import common_words


def lacks(claim: str, text: str) -> list[str]:
    """What of a claim a text does not have."""
    keys = evidence(text)
    return [demand.text for demand in demands(claim) if not is_met(demand, keys)]


def test_the_examples() -> None:
    assert doctest.testmod(facts).failed == 0


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ("1,000 of them", "1000 of them"),
        ("1 000 of them", "1,000 of them"),
        ("1.234,50 of them", "1,234.5 of them"),
        ("3.5 of them", "3,5 of them"),
        ("1.500 Stück", "1500 Stück"),
        ("007", "7"),
        ("two of them", "2 of them"),
        ("25 of them", "Twenty-five of them"),
        ("the 10th", "the tenth"),
        ("3 million", "3,000,000"),
        ("2.5 thousand", "2500"),
        ("in the 1990s", "in the 1990s"),
        ("50%", "50 percent"),
        ("5 percent", "5%"),
        ("5 km", "five kilometres"),
        ("a 30-day trial", "a trial of 30 days"),
        ("$5", "5 dollars"),
        ("5 USD in EUR", "$5 in EUR"),
        ("5 kg", "| Weight (kg) | 5 |"),
        ("On 5 March 2021", "On 2021-03-05"),
        ("On March 5, 2021", "05.03.2021"),
        ("On 2021-03-05", "on March 5th, 2021"),
        ("On 3/5/2021", "on 5 March 2021"),
        ("In 2021-03", "in March 2021"),
        ("在2021年3月5日", "2021-03-05"),
        ("٣٤", "34"),
        ("the A380", "the a380"),
        ("the XJ-900", "the XJ900"),
        ("Apollo-11", "Apollo 11"),
        ("the “COVID‑19” virus", "covid-19"),
        ("Run `rag serve --port 80`.", "rag serve --port 80"),
        ("the iPhone", "an iphone"),
        ("It is rag.toml", "the file rag.toml."),
        ("said O’Reilly", "O'Reilly said"),
        ("said Jean-Paul", "Jean and Paul"),
        ("Einstein's theory by Einstein", "einstein"),
        ("two **hundred** of them", "200"),
        ("It was built for NASA", "nasa"),
    ],
)
def test_what_is_the_same(claim: str, text: str) -> None:
    assert demands(claim)
    assert lacks(claim, text) == []


@pytest.mark.parametrize(
    ("claim", "text", "missing"),
    [
        ("1,000 of them", "1001 of them", ["1,000"]),
        ("1,500 of them", "1.5 of them", ["1,500"]),
        ("two of them", "3 of them", ["two"]),
        ("3 million", "3", ["3 million"]),
        ("5 km", "5 miles", ["5 km"]),
        ("5 km", "5 miles or 8 km", ["5 km"]),
        ("$5", "€5", ["5 $"]),
        ("On 5 May 2021", "On 2021-03-05", ["May"]),
        ("On 2021-03-05", "on 5 May 2021", ["3"]),
        ("the A380", "the A381", ["A380"]),
        ("version 3.11.2", "version 3.11.3", ["3.11.2"]),
        ("use --prot", "use --port", ["prot"]),
        ("set max_size", "set max_length", ["max_size"]),
        ("see http://a.example/x", "see http://a.example/y", ["http://a.example/x"]),
        ("mail to a@b.example", "mail to c@b.example", ["a@b.example"]),
        ("it was Rollo who came", "it was Bob who came", ["Rollo"]),
        ("Rollo came", "Bob came", ["Rollo"]),
        ("He said: Rollo came", "he came", ["Rollo"]),
        ("by Jean-Paul", "by Jean-Luc", ["Jean-Paul"]),
        ("the UN's role", "its role", ["UN's"]),
        ("1" * 30, "2" * 30, ["1" * 30]),
        ("他在2021年来了", "他在2020年来了", ["2021"]),
    ],
)
def test_what_is_another(claim: str, text: str, missing: list[str]) -> None:
    assert lacks(claim, text) == missing


@pytest.mark.parametrize(
    "claim",
    [
        "However, the first one came.",
        "Researchers say so. None of them came.",
        'He said: "Although it rained, we went."',
        "I'm here and I stay.",
        "The 19th-century mid-range idea, e.g. this and/or that.",
        "DO NOT UNPLUG THE LAMP",
        "全文検索は便利です。",
        "ภาษาไทย",
    ],
)
def test_what_states_nothing_of_the_kind(claim: str) -> None:
    assert [demand for demand in demands(claim) if demand.text != "19"] == []


def test_german_capitals_are_no_names() -> None:
    german = "Die Lampe und der Kessel stehen auf dem Tisch, und die Katze schläft nicht."
    assert not facts.capitals_name(german)
    assert facts.capitals_name("The lamp and the kettle stand on the table, and the cat does not die.")
    assert demands(german, names=False) == []


@given(st.text(max_size=200))
def test_a_text_has_what_it_states(text: str) -> None:
    keys = evidence(text)
    assert [demand for demand in demands(text) if not is_met(demand, keys)] == []


def test_the_words_are_those_of_the_vocabularies() -> None:
    words = (facts_folder := facts.__file__.rpartition("/")[0], f"{facts_folder}/words.txt")[1]
    with open(words, encoding="utf-8") as file:
        assert file.read().split() == common_words()
