import pytest

from orbench.engine.progress import Progress, Tally
from orbench.scoring.outcomes import Outcome


def finish(progress):
    progress.update("safe", Outcome.DIRECT_REFUSAL)
    progress.update("safe", Outcome.DIRECT_ANSWER)
    progress.update("toxic", Outcome.DIRECT_REFUSAL)
    progress.update("safe", Outcome.ERROR)
    progress._bar and progress._bar.refresh()
    progress.close()


def test_the_bar_shows_the_model_how_far_it_is_and_over_refusal(capsys):
    finish(Progress("openai/some-model", total=10, done=3, position=0, policy="default", show=True))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "openai/some-model" in captured.err
    assert "7/10" in captured.err
    assert "over-refusal 50.0%" in captured.err


@pytest.mark.parametrize("show", [None, False])
def test_nothing_is_shown_elsewhere_than_on_a_terminal(capsys, show):
    finish(Progress("openai/some-model", total=10, done=3, position=0, policy="default", show=show))
    assert capsys.readouterr() == ("", "")


def test_growing_work_is_shown_with_what_is_done_of_it(capsys):
    tally = Tally("moderator openai/some-model", position=0, show=True)
    for _ in range(4):
        tally.begin()
    tally.done()
    tally.close()
    shown = capsys.readouterr().err
    assert "moderator openai/some-model" in shown
    silent = Tally("moderator openai/some-model", position=0, show=None)
    silent.begin()
    silent.done()
    silent.close()
    assert capsys.readouterr().err == ""
