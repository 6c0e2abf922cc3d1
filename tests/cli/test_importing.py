"""`orbench import`."""

from pathlib import Path

from orbench.models.baseline import ANSWER, REFUSAL


def test_a_table_is_imported_and_shown(cli):
    Path("mine.csv").write_text(f'question,answer\nHow?,"{ANSWER}"\nWhy?,"{REFUSAL}"\n', encoding="utf-8")
    columns = ("--column", "prompt=question", "--column", "response=answer")
    done = cli("import", "safe=mine.csv", *columns, "--out", "run", "--model", "openai/x", "--json")
    assert done.code == 0
    assert done.json[0]["over_refusal_rate"]["refused"] == 1
    assert "openai/x" in cli("show", "run").out


def test_what_cannot_be_imported_is_one_line(cli):
    Path("mine.csv").write_text("prompt,response\na,b\n", encoding="utf-8")
    assert cli("import", "mine.csv", "--out", "run").code == 2
    for name in ("nowhere.csv", "nowhere.eval", "nowhere"):
        done = cli("import", name, "--out", "run")
        assert (done.code, done.err) == (1, f"orbench: {name}: no such file\n")
    assert "is a folder; name the log" in cli("import", ".", "--out", "run").err
    assert "write NAME=VALUE" in cli("import", "mine.csv", "--out", "run", "--column", "prompt").err
    assert "given before" in cli("import", "mine.csv", "--out", "r", "--column", "id=a", "--column", "id=b").err
    assert not Path("run").exists()
