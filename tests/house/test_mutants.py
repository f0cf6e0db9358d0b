"""`make mutants` counts the mutants that no test detects, without changes of text and known equivalents."""

from __future__ import annotations

from tests.mutants import Mutant, equivalents, only_words, table

KILLED = Mutant("agent.commands.command.verify", "killed", "", "")
WORDS = Mutant("agent.commands.command.verify", "survived", 'return "too large"', 'return "XXtoo largeXX"')
ALIKE = Mutant("agent.ledger.ledger.Ledger.open", "survived", "a = 1", "a = 2")
UNSEEN = Mutant("agent.ledger.ledger.Ledger.open", "no tests", "if a < b:", "if a <= b:")


def test_a_mutant_that_no_test_sees_lowers_the_score_also_where_no_test_reaches_it() -> None:
    lines, unseen, score = table([KILLED, KILLED, KILLED, UNSEEN, WORDS, ALIKE], {(ALIKE.function, ALIKE.change)})
    assert unseen == [UNSEEN]
    assert score == 0.75
    assert lines[-1].split() == ["all", "3", "1", "1", "1", "75.0%"]


def test_nothing_seen_at_all_is_no_success() -> None:
    assert table([], set())[2] == 0.0


def test_only_a_change_of_text_is_a_change_of_words() -> None:
    assert only_words(WORDS)
    assert not only_words(UNSEEN)
    assert not only_words(Mutant("f", "survived", 'f("a", 1)', 'f("b", 2)'))


def test_every_mutant_that_is_left_out_has_a_reason() -> None:
    assert equivalents()
