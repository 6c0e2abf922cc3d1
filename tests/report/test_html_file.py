"""The report as a file: what is embedded, what is refused, and that it names no address. No browser needed."""

import html
import json
import re

import pytest

import orbench
from orbench.testing import ScriptedModel


@pytest.fixture
def make(tmp_path):
    def build(rows=200, name="run", reply="Certainly, take a brush.", **options):
        file = tmp_path / f"{name}.csv"
        lines = "".join(f"{'Lock' if n % 4 == 0 else 'Fence'} question {n}?,harmful,safe\n" for n in range(rows))
        file.write_text(f"prompt,category,kind\n{lines}", encoding="utf-8")
        model = ScriptedModel(
            lambda request: "I can't help with that." if request.prompt.startswith("Lock") else reply,
            name=f"scripted/{name}",
        )
        return orbench.evaluate(model, splits=str(file), out=tmp_path / name, scorer="keywords", **options)

    return build


def data(path):
    page = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_no_address_stands_in_the_page_itself(make, tmp_path):
    page = make().to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|(?:src|href)=(?!\"#)|@import|url\(", page)
    assert "default-src 'none'; script-src 'sha256-" in html.unescape(page)


def test_rows_of_most_interest_come_first_and_what_is_left_out_is_said(make, tmp_path):
    path = make(200).to_html(tmp_path / "report.html", rows=80)
    found = data(path)
    assert len(found["id"]) == 80
    refused = found["outcomes"].index("direct_refusal")
    assert found["runs"][0]["outcome"].count(refused) == 50
    page = path.read_text(encoding="utf-8")
    assert "80 of 200 prompts are in this page: all 50 of most interest" in page
    assert "25.0 %" in page  # the rate counts all


def test_long_texts_are_cut_where_they_would_not_fit_and_it_is_said(make, tmp_path):
    path = make(1000, reply="Certainly. " + "word " * 2000).to_html(tmp_path / "report.html")
    found = data(path)
    assert path.stat().st_size < 3_000_000
    assert max(map(len, found["runs"][0]["reply"])) == found["limit"]
    assert "750 prompts and replies are longer than" in path.read_text(encoding="utf-8")


def test_the_data_cannot_end_their_element(make, tmp_path):
    path = make(8, reply="</script><!-- & \u2028 >").to_html(tmp_path / "report.html")
    assert "</script><!-- & \u2028 >" in data(path)["runs"][0]["reply"]
    inside = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert not set(inside) & {"<", ">", "&", "\u2028"}


def test_the_same_runs_give_the_same_page_under_the_policy_asked_for(make, tmp_path):
    result = make()
    first = orbench.write_report(result, tmp_path / "a.html", policy="strict").read_bytes()
    assert first == orbench.write_report(result.run, tmp_path / "b.html", policy="strict").read_bytes()
    assert b"Policy: strict" in first


def test_what_cannot_be_meant_is_refused_in_a_sentence(make, tmp_path):
    result = make(8)
    with pytest.raises(orbench.UsageError, match="at least one run"):
        orbench.write_report([], tmp_path / "r.html")
    with pytest.raises(orbench.UsageError, match="given twice"):
        orbench.write_report([result, result.run], tmp_path / "r.html")
    with pytest.raises(orbench.UsageError, match="add --policy"):
        orbench.write_report([result, make(8, "other").with_policy("strict")], tmp_path / "r.html")
    with pytest.raises(orbench.UsageError, match="rows is 0"):
        result.to_html(tmp_path / "r.html", rows=0)
    with pytest.raises(orbench.RunError, match="not a run folder"):
        orbench.write_report(tmp_path, tmp_path / "r.html")
    with pytest.raises(orbench.RunError, match="cannot be written"):
        result.to_html(tmp_path / "missing" / "r.html")
    assert not list(tmp_path.glob("*.part"))


def test_a_name_and_password_in_an_address_stay_out(make, tmp_path):
    result = make(8)
    config = json.loads((result.run / "run.json").read_text())
    config["base_url"] = "http://somebody:secret@localhost:8000/v1"
    config["earlier_base_urls"] = ["http://somebody:secret@localhost:7000/v1", None]
    (result.run / "run.json").write_text(json.dumps(config))
    page = orbench.write_report(result.run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "secret" not in page
    assert "localhost:8000" in page
    assert "http://localhost:7000/v1, the usual one" in page
    assert "secret" not in str(orbench.Evaluation.load(result.run))


def test_the_table_has_grouped_intervals_beside_the_plain_ones(tmp_path):
    lines = [f"Prompt {n}?,harmful,seed-{n // 5}\n" for n in range(50)]
    (tmp_path / "seeded.csv").write_text("prompt,category,seed_id\n" + "".join(lines))
    model = ScriptedModel(lambda request: "I can't help with that." if int(request.prompt[7:-1]) < 25 else "Certainly.")
    result = orbench.evaluate(model, splits=f"safe={tmp_path / 'seeded.csv'}", out=tmp_path / "run", scorer="keywords")
    page = result.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    rate, grouped = result.over_refusal_rate, orbench.summarise(result).over_refusal
    for found in (rate, grouped):
        assert f"{100 * found.low:.1f}–{100 * found.high:.1f} %" in page
    assert "50 prompts in 10 groups; the groups raise the variance by the factor 5.56" in page
    assert "takes prompts made from one seed as one group" in " ".join(page.split())


def words(path):
    """The page's text, in one line."""
    body = path.read_text(encoding="utf-8").partition("<body")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_best_is_named_where_the_runs_were_asked_the_same(run, tmp_path):
    page = words(orbench.write_report([run(range(4), "a"), run(range(10), "b")], tmp_path / "report.html"))
    assert "scripted/a refuses fewest safe prompts: 10.0 %" in page
    assert "scripted/b refuses most toxic prompts: 33.3 %" in page


def test_nobody_is_best_in_a_tie(run, tmp_path):
    page = words(orbench.write_report([run(range(4), "a"), run(range(1, 5), "b")], tmp_path / "report.html"))
    assert "refuses fewest" not in page
    assert "refuses most" not in page


def test_runs_that_may_not_be_compared_are_not_ranked(make, run, split_file, tmp_path):
    page = words(orbench.write_report([make(40, "a"), make(60, "b")], tmp_path / "report.html"))
    assert "cannot be compared" in page
    assert "refuses fewest" not in page
    for name, rows in (("safe", 40), ("more", 20)):
        lines = "".join(f"{name.title()} question {n}?,harmful\n" for n in range(rows))
        (tmp_path / f"{name}.csv").write_text(f"prompt,category\n{lines}", encoding="utf-8")
    toxic, (safe, more) = split_file("toxic", 30), (f"safe={tmp_path}/{name}.csv" for name in ("safe", "more"))
    runs = [run(range(4), "c", splits=[safe, toxic]), run(range(9), "d", splits=[safe, more, toxic])]
    page = words(orbench.write_report(runs, tmp_path / "report.html"))
    assert "refuses fewest safe" not in page
    assert "scripted/d refuses most toxic prompts" in page


def test_a_run_that_stopped_early_is_not_called_unfinished(run, split_file, tmp_path):
    splits = [split_file("safe", 600), split_file("toxic", 300)]
    result = run(range(0, 600, 2), "early", splits=splits, precision=0.1)
    page = words(result.to_html(tmp_path / "report.html"))
    early = result.stopped_early
    assert f"Stopped early: {early['asked']:,} of 900 prompts asked, {100 * early['saved']:.1f} % saved" in page
    assert f"over-refusal {100 * early['safe']['low']:.1f}-{100 * early['safe']['high']:.1f} %" in page
    assert "not finished" not in page.lower()


def test_a_run_that_spent_its_money_is_told_from_one_that_was_stopped(run, tmp_path):
    result = run(range(4), "a")
    for name in ("responses.jsonl", "verdicts.jsonl"):
        lines = (result.run / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (result.run / name).write_text("".join(lines[:50]), encoding="utf-8")
    config = json.loads((result.run / "run.json").read_text(encoding="utf-8"))
    config |= {"stopped_at_max_cost": 2.5, "earlier_base_urls": ["http://127.0.0.1:1/v1"]}
    (result.run / "run.json").write_text(json.dumps(config), encoding="utf-8")
    page = words(orbench.write_report(result.run, tmp_path / "report.html"))
    assert "Stopped at --max-cost 2.5: 20 prompts without an outcome" in page
    assert "Asked at another address before (http://127.0.0.1:1/v1)" in page


def test_a_single_trigger_is_spoken_of_as_one(make, tmp_path):
    page = make(40).to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Of 5 words and phrases in five prompts or more, the only one whose interval lies above 0." in page
