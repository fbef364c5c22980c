"""Scores with expected values worked out by hand."""

import pytest

from orchestration.quality import exact_match, rouge_l


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence():
    # LCS "the cat sat" = 3; precision 3/4, recall 3/5, F = 2·(3/4)(3/5)/(27/20) = 2/3.
    score = rouge_l("the cat sat down", ["the cat has sat there"])
    assert score == pytest.approx(100 * 2 / 3)


def test_rouge_l_stems_words_and_takes_the_best_reference():
    assert rouge_l("cats running", ["nothing alike", "cat run"]) == 100.0


def test_exact_match_ignores_case_punctuation_and_space_but_keeps_articles():
    assert exact_match("  Paris,\n France!", ["x", "paris france"]) == 100.0
    assert exact_match("the end", ["end"]) == 0.0


def test_exact_match_may_look_at_the_answer_alone():
    answer = r"#### (.+)"
    assert exact_match("so 3+4\n#### 1,007", ["other words\n#### 1007"], answer) == 100.0
    assert exact_match("#### 3\n#### 4", ["#### 3"], answer) == 0.0  # the last one counts
    assert exact_match("1007", ["#### 1007"], answer) == 0.0  # no answer is given
    assert exact_match("1007", ["1007"], answer) == 0.0  # and none is known
