"""`orbench sweep`."""

import pytest


def test_the_command_prints_both_rates_of_each_cell(cli):
    done = cli(
        "sweep", "baseline/keyword-guard", "--split", "sample", "--defense", "smoothllm", "--system-prompt", "Hi."
    )
    assert done.code == 0
    assert "3 cells, 1 run each" in done.out
    for label in ("temperature 0", 'system prompt "Hi."', "smoothllm"):
        assert done.out.count(f"\n{label} ") == 2
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_the_picture(cli, here):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    done = cli(
        "sweep",
        "baseline/keyword-guard",
        "--split",
        "sample",
        "--defense",
        "smoothllm",
        "--repeat",
        "2",
        "--plot",
        "s.png",
    )
    assert done.code == 0
    assert (here / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "drawn in s.png" in done.err


def test_json_formats_and_the_prompts_that_move(cli):
    command = ("sweep", "baseline/keyword-guard", "--split", "sample", "--defense", "smoothllm")
    (found,) = cli(*command, "--json").json
    assert [cell["label"] for cell in found["cells"]] == ["temperature 0", "smoothllm"]
    moved = cli(*command, "--unstable", "--json").json
    assert len(moved) == round(found["cells"][1]["over_refusal"]["changed"] * 170) + round(
        found["cells"][1]["toxic_rejection"]["changed"] * 60
    )
    assert all(prompt["refused"] in ([1, 0], [0, 1]) for prompt in moved)
    assert "refused in 1: 100 %  2: 0 %" in cli(*command, "--unstable").out
    assert cli(*command, "--format", "csv").out.startswith("condition,rate of,")


def test_a_system_prompt_may_be_a_file(cli, here):
    (here / "prompt.txt").write_text("Be brief.")
    done = cli("sweep", "baseline/always-answer", "--split", "sample", "--system-prompt", "@prompt.txt")
    assert 'system prompt "Be brief."' in done.out


def test_wrong_usage(cli):
    assert cli("sweep", "baseline/always-answer", "--defense", "hope").code == 2
    assert cli("sweep", "baseline/always-answer", "--split", "sample", "--plot", "s.bmp").code == 2


def test_rows_that_failed_show_in_the_exit_code(cli, here):
    (here / "broken.py").write_text("def model(prompt):\n    raise ValueError('no')\n")
    done = cli("sweep", "python/broken:model", "--split", "sample")
    assert done.code == 3
    assert "230 replies without a verdict" in done.out


def test_precision_on_the_command_line(cli, here):
    lines = "".join(f"Prompt {n}?,harmful\n" for n in range(600))
    (here / "many.csv").write_text("prompt,category\n" + lines)
    (here / "slow.py").write_text("def model(prompt):\n    return 'I cannot help with that.'\n")
    done = cli("evaluate", "python/slow:model", "--split", "safe=many.csv", "--precision", "0.05")
    assert done.code == 0
    assert "stopped early" in done.out
    assert cli("evaluate", "python/slow:model", "--split", "safe=many.csv", "--precision", "0.9").code == 2
