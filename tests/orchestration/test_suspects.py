from configs.wire import Prompt
from orchestration.suspects import Suspects
from tests.builders import prompt


def ordinals(groups: list[list[Prompt]]) -> list[list[int]]:
    return [[each.uid.ordinal for each in group] for group in groups]


def test_the_first_death_may_have_been_chance_all_ask_again_together() -> None:
    groups, poison = Suspects(3).after_death([prompt(1), prompt(2)])
    assert (ordinals(groups), poison) == ([[1, 2]], [])


def test_from_the_second_death_on_each_asks_for_itself() -> None:
    suspects, both = Suspects(3), [prompt(1), prompt(2)]
    suspects.after_death(both)
    assert ordinals(suspects.after_death(both)[0]) == [[1], [2]]


def test_a_prompt_that_was_there_before_is_set_apart_from_its_new_neighbours() -> None:
    suspects = Suspects(3)
    suspects.after_death([prompt(1)])
    assert ordinals(suspects.after_death([prompt(1), prompt(2)])[0]) == [[1], [2]]


def test_who_is_alone_at_the_last_death_is_poison() -> None:
    suspects = Suspects(3)
    suspects.after_death([prompt(1), prompt(2)])
    suspects.after_death([prompt(1), prompt(2)])
    groups, poison = suspects.after_death([prompt(2)])
    assert (groups, poison) == ([], [prompt(2).uid])


def test_nobody_is_poison_for_the_company_it_kept() -> None:
    suspects, both = Suspects(3), [prompt(1), prompt(2)]
    for _ in range(5):
        groups, poison = suspects.after_death(both)
        assert poison == []
    assert ordinals(groups) == [[1], [2]]


def test_where_one_death_is_enough_a_lone_prompt_is_given_up_at_once() -> None:
    assert Suspects(1).after_death([prompt(4)]) == ([], [prompt(4).uid])
