"""The glossary: one meaning for each word."""

import re
from collections import Counter

from tests.docs.pages import DOCS

ROWS = [
    re.split(r"(?<!\\)\|", line)
    for line in (DOCS / "glossary.md").read_text().splitlines()
    if line.startswith("| **")
]


def test_every_row_is_a_word_and_what_it_means():
    assert len(ROWS) > 60
    for row in ROWS:
        assert len(row) == 4, row
        assert row[2].strip().endswith("."), row


def test_no_word_has_two_rows():
    words = Counter(word.lower() for row in ROWS for word in re.findall(r"\*\*([^*]+)\*\*", row[1]))
    assert [word for word, count in words.items() if count > 1] == []
