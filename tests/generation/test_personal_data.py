"""Personal data told by its form."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.generation.personal_data import find_personal_data, scrub


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Write to ann.lee+x@mail.example.com, please.", "Write to [email], please."),
        ("Write to müller@straße.example now", "Write to [email] now"),
        ("Call +49 30 901820 or (212) 555-0123.", "Call [phone] or [phone]."),
        ("Call 1-212-555-0123, 0049 30 901820 or 212.555.0123", "Call [phone], [phone] or [phone]"),
        ("Pay to DE89 3704 0044 0532 0130 00 today", "Pay to [iban] today"),
        ("Pay to GB82WEST12345698765432.", "Pay to [iban]."),
        ("My card 4111 1111 1111 1111 expired", "My card [card] expired"),
        ("My card 378282246310005 expired", "My card [card] expired"),
        ("SSN 219-09-9999?", "SSN [social-security]?"),
        ("Who owns 8.8.8.8?", "Who owns [ip-address]?"),
        ("Who owns 2001:4860:4860::8888?", "Who owns [ip-address]?"),
        ("Who owns 8.8.8.8.", "Who owns [ip-address]."),
    ],
)
def test_what_has_the_form_of_personal_data_is_found_and_scrubbed(text, scrubbed):
    assert scrub(text) == scrubbed
    assert find_personal_data(scrubbed) == []


@pytest.mark.parametrize(
    "text",
    [
        "What happened between 1914 and 1918, at 12:30 or 10::?",
        "A card with a wrong digit: 4111 1111 1111 1112",
        "An account with a wrong check number: DE88 3704 0044 0532 0130 00",
        "Numbers never given out: 000-12-3456, 666-12-3456, 900-12-3456",
        "Hosts at home: 127.0.0.1, 192.168.0.1, ::1, fe80::1, 300.1.1.1",
        "Use @property and a@b, price 1,000,000.00, ISBN 978-3-16-148410-0",
        "What is the population of a country of 1300000000 people?",
        "",
    ],
)
def test_what_only_looks_a_little_like_it_is_left(text):
    assert find_personal_data(text) == []
    assert scrub(text) == text


@given(st.text(st.sampled_from("0123456789 -+.@:()abDE"), max_size=60))
def test_what_is_found_lies_apart_and_in_order(text):
    found = find_personal_data(text)
    ends = [0, *(each.end for each in found)]
    assert all(before <= each.start < each.end for before, each in zip(ends, found, strict=False))
    assert len(scrub(text)) >= len(found)


@pytest.mark.parametrize("piece", ["a", "1 ", "1-", "a.", "a@a.", "+1", ":", "AB12 ", "(1)", "1."])
def test_a_long_text_takes_no_longer_than_its_length_asks_for(piece):
    def cost(length):
        began = time.process_time()
        find_personal_data(piece * length)
        return time.process_time() - began

    cost(100)
    assert cost(20_000) < 2  # a pattern that goes back and forth takes minutes
