"""Tables for other programs."""

import csv
import io
import re

from orbench.report.export import Table, p_value

TABLE = Table(
    ("model", "rate", "p", "n"), (("a|b & c_d", 0.25, 0.0004, 1200), ("e", None, None, None)), frozenset({"p"})
)


def test_csv_keeps_the_numbers():
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))
    assert rows == [["model", "rate", "p", "n"], ["a|b & c_d", "0.25", "0.0004", "1200"], ["e", "", "", ""]]


def test_markdown_is_for_people_and_escapes_bars():
    assert TABLE.to_markdown() == (
        "| model | rate | p | n |\n| --- | ---: | ---: | ---: |\n"
        "| a\\|b & c_d | 25.0 % | <0.001 | 1,200 |\n| e | - | - | - |\n"
    )


def test_latex_uses_booktabs_and_escapes():
    text = TABLE.to_latex()
    assert text.startswith("\\begin{tabular}{lrrr}\n\\toprule\nmodel & rate & p & n \\\\\n\\midrule\n")
    assert r"a|b \& c\_d & 25.0 \% & \textless{}0.001 & 1,200 \\" in text
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    assert r"\textbackslash{}\{\}\$\#\textasciicircum{}\textasciitilde{}" in Table(("x",), (("\\{}$#^~",),)).to_latex()


def test_a_p_value_is_never_nought():
    assert [p_value(p) for p in (None, 1e-30, 0.0123, 1)] == ["-", "<0.001", "0.012", "1.000"]


def test_an_evaluation_can_be_exported(run):
    result = run(range(10), "a")
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert len(rows) == 2 + 2 + 4
    assert rows[0] | {} == rows[0]
    assert (rows[0]["kind"], rows[0]["rate"], rows[0]["refused"], rows[0]["scored"]) == ("safe", "0.25", "10", "40")
    assert "| all | all | safe | 25.0 % |" in result.to_markdown()
    assert re.search(r"all & all & safe & 25\.0 \\%", result.to_latex())
