"""What the check of an exercise prints."""

from stn.exercises import check


def assert_mistake_is_named(exercise, answer, sentence, capsys):
    check(exercise, answer)
    verdict = capsys.readouterr().out
    assert verdict.startswith(f"Exercise {exercise}: not correct yet: ")
    assert sentence in verdict


def assert_is_correct(exercise, answer, capsys):
    check(exercise, answer)
    assert capsys.readouterr().out.startswith(f"Exercise {exercise}: correct. ")
