"""SIGTERM within a program: what it does while a command runs, and to whom it does nothing."""

import os
import signal

import pytest

from orbench.cli.signals import orderly_sigterm


def test_it_interrupts_and_is_noted_and_means_what_it_did_afterwards():
    with pytest.raises(KeyboardInterrupt), orderly_sigterm() as came:
        signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_handler_of_somebody_else_is_left_alone():
    noted = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    try:
        with orderly_sigterm() as came:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (noted, came) == ([signal.SIGTERM], [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_dies_of_it_as_its_parent_expects():
    with orderly_sigterm() as came:
        worker = os.fork()
        if worker == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert came == []
