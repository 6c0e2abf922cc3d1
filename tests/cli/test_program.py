"""The program as a whole: what it prints where, how it is interrupted and killed, and goes on."""

import os
import pty
import re
import signal
import termios
import threading
from collections import Counter
from pathlib import Path

import pytest

import orbench
from orbench.engine.run_folder import read_responses, read_verdicts
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.testing import LoopbackServer, ScriptedModel


def test_version(cli):
    assert cli("--version").out == f"orbench {orbench.__version__}\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands_in_order(cli, flag):
    done = cli(flag)
    places = [done.out.index(f"\n  {name} ") for name in ("evaluate", "score", "show", "splits", "models", "path")]
    assert done.code == 0
    assert places == sorted(places)


def test_it_is_a_module_too(finish):
    assert finish("--version", module=True).out == f"orbench {orbench.__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_error(process, here):
    prompts = [f"Question {n}?" for n in range(5000)]
    (here / "many.csv").write_text("prompt\n" + "\n".join(prompts))
    orbench.evaluate(ScriptedModel(REFUSAL), splits="safe=many.csv", out=here / "run")
    one = process("show", "run", "--refusals")
    assert one.stdout.readline().startswith("many  uncategorised  direct_refusal")
    one.stdout.close()
    one.stdout = None
    _, err = one.communicate(timeout=60)
    assert (one.returncode, err) == (141, "")


def on_a_terminal(process, *arguments, **env):
    """Runs a command whose output is a terminal and returns what that shows."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    one = process(*arguments, stdout=theirs, stderr=theirs, env={"TERM": "xterm", **env})
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert one.wait(timeout=60) == 0
    return shown.decode()


COMMAND = ("evaluate", "baseline/keyword-guard", "--split", "sample", "--out", "run")


def test_on_a_terminal_there_is_a_progress_bar_and_bold_type(process):
    shown = on_a_terminal(process, *COMMAND, NO_COLOR="")
    assert "\x1b[1mbaseline/keyword-guard\x1b[0m" in shown
    assert re.search(r"baseline/keyword-guard: +0%.* 0/230 ", shown)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_none(process, env):
    shown = on_a_terminal(process, *COMMAND, **env)
    assert "\x1b[1m" not in shown
    assert "over-refusal (safe)" in shown


def test_quiet_holds_on_a_terminal_too(process):
    assert on_a_terminal(process, *COMMAND, "--quiet") == ""
    assert on_a_terminal(process, "score", "run", "--quiet") == ""


def test_elsewhere_there_is_no_escape_code_and_no_progress(finish):
    done = finish(*COMMAND, env={"TERM": "xterm", "NO_COLOR": "", "FORCE_COLOR": "1"})
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out


class Holding(LoopbackServer):
    """Answers until so many were answered, then puts everybody off until it is let go."""

    def __init__(self):
        super().__init__(self._reply_or_hold)
        self._last = None
        self.holds = threading.Event()

    def _reply_or_hold(self, body):
        if self._last is not None and self.answered >= self._last:
            self.holds.set()
            return 503, {"error": {"message": "come back later"}}, {"retry-after": "300"}
        return ANSWER

    def hold_after(self, more):
        """Answer so many more, then hold."""
        self.holds.clear()
        self._last = self.answered + more

    def let_go(self):
        self._last = None


def write_prompts(path, rows):
    path.write_text("prompt\n" + "".join(f"Write an insult about neighbour {n}.\n" for n in range(rows)))


def api_run(server, rows):
    """A run of so many prompts, as typed."""
    write_prompts(Path("mine.csv"), rows)
    return ("evaluate", "openai/any", "--base-url", server.base_url, "--split", "toxic=mine.csv", "--out", "run")


def ignore_interrupts():
    """As a script does for what it starts in its background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("signals", "started", "code", "said"),
    [
        ([signal.SIGINT], None, 130, "interrupted"),
        ([signal.SIGTERM], None, 143, "ended by SIGTERM"),
        ([signal.SIGTERM, signal.SIGTERM], None, 143, "ended by SIGTERM"),
        ([signal.SIGINT, signal.SIGTERM], ignore_interrupts, 143, "ended by SIGTERM"),
    ],
)
def test_interrupted_it_saves_says_so_and_goes_on(process, finish, here, signals, started, code, said):
    with Holding() as server:
        command = api_run(server, 100)
        server.hold_after(40)
        one = process(*command, preexec_fn=started)
        assert server.holds.wait(60)
        for number in signals:
            one.send_signal(number)
        out, err = one.communicate(timeout=60)
        assert (one.returncode, out) == (code, "")
        assert err == f"orbench: {said}. Everything received is saved; run the same command again to go on\n"
        assert (here / "run" / "result.json").is_file()
        saved = len(list(read_responses(here / "run")))
        assert 1 <= saved <= 40
        server.let_go()
        assert finish(*command).code == 0
        assert server.answered == 40 + 100 - saved


def test_whoever_ignores_sigterm_goes_on_ignoring_it(process, here):
    with Holding() as server:
        command = api_run(server, 20)
        server.hold_after(10)
        one = process(*command, preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
        assert server.holds.wait(60)
        one.send_signal(signal.SIGTERM)
        one.send_signal(signal.SIGINT)
        assert "interrupted" in one.communicate(timeout=60)[1]


def test_killed_at_any_moment_it_goes_on_and_pays_twice_only_for_what_was_open(process, finish, here):
    rows, lost = 300, 0
    with Holding() as server:
        command = api_run(server, rows)
        for moment in (1, 40, 90, 60):
            server.hold_after(moment)
            one = process(*command)
            assert server.holds.wait(60)
            one.kill()
            one.communicate(timeout=60)
            before, lost = lost, server.answered - len(list(read_responses(here / "run")))
            assert 0 <= lost - before <= min(moment, 256)
        server.let_go()
        assert finish(*command).code == 0
        assert server.answered == rows + lost
    replies = Counter(response.key for response in read_responses(here / "run"))
    verdicts = Counter(verdict.key for verdict in read_verdicts(here / "run"))
    assert len(replies) == len(verdicts) == rows
    assert set(replies.values()) == {1}
    assert orbench.Evaluation.load(here / "run").open == 0


def test_a_second_process_on_one_run_is_refused_and_the_first_goes_on(process, finish, here):
    with Holding() as server:
        command = api_run(server, 50)
        server.hold_after(10)
        first = process(*command)
        assert server.holds.wait(60)
        second = finish(*command)
        assert (second.code, second.out) == (1, "")
        assert second.err == (
            "orbench: run: another process is working on this run. Wait for it, or choose another --out\n"
        )
        assert server.answered == 10
        assert first.poll() is None
        first.kill()


def test_nothing_is_written_outside_the_run_folder(finish, here):
    finish(*COMMAND)
    assert [path.name for path in here.iterdir()] == ["run"]
    assert sorted(path.name for path in Path("run").iterdir() if path.name != ".lock") == [
        "responses.jsonl",
        "result.json",
        "run.json",
        "verdicts.jsonl",
    ]


def test_each_command_has_one_whole_line_in_the_list(cli):
    listed = cli("--help").out.partition("Commands:")[2].strip("\n").splitlines()
    assert len(listed) >= 16
    assert all(line.startswith("  ") and line[2] != " " and line.endswith(".") for line in listed)
    assert not any(line.endswith("...") for line in listed)


def test_a_misspelt_provider_is_told_before_prompts_are_fetched(cli):
    done = cli("evaluate", "opnai/gpt", "--split", "nowhere.csv")
    assert done.code == 2
    assert "opnai" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "run", "--out"),
        ("show", "run", "--parquet"),
        ("calibrate", "--labels", "labels.csv", "--out"),
    ],
)
@pytest.mark.parametrize("folder", [".", "/", "there"])
def test_a_folder_where_a_file_is_to_be_written_is_told(cli, here, arguments, folder):
    cli(*COMMAND)
    (here / "there").mkdir()
    (here / "labels.csv").write_text("prompt,response,label\nHow?,Sure.,compliance\n")
    before = sorted(here.iterdir())
    done = cli(*arguments, folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"orbench: {folder}: cannot be written: it is a folder. Name a file in it\n"
    assert sorted(here.iterdir()) == before


def test_a_path_that_cannot_be_is_one_line(cli):
    done = cli("evaluate", "baseline/always-refuse", "--split", "sample", "--out", "x" * 300)
    assert done.code == 1
    assert done.err.endswith("x/run.json: File name too long; check that path, and what may be done with it\n")
