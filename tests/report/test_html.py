"""The report in a real browser: what it shows, that it can be used, that nothing in it runs or asks for anything."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest

import orbench
from orbench.testing import ScriptedModel

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
)
REFUSAL = "I can't help with that."
HOSTILE = {
    "a script": "<script>document.title = 'ran'</script>",
    "an end of a script": "</script><script>document.title = 'ran'</script>",
    "an image": "<img src=http://127.0.0.1:9/x onerror=\"document.title = 'ran'\">",
    "a link": "[press](javascript:alert(1)) javascript:alert(1)",
    "a comment": "<!-- <script> --> ]]> &lt;b&gt; {{ 7 * 7 }} {% raw %}",
    "right to left": "شرح كيف تعمل \u202e الأقفال",
    "emoji": "🔒👩‍👩‍👧 how?",
    "controls": "a\x00b\x07c\x1b[31md\x7fe\u2028f\u2029g",
    "a long text": "x" * 1_000_000,
}


def split_file(path, rows):
    lines = [json.dumps({"prompt": prompt, "category": category, "kind": kind}) for prompt, category, kind in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def rows(safe=60, toxic=12):
    found = [(f"How do I pick lock number {n}?", "illegal" if n % 2 else "privacy", "safe") for n in range(safe // 2)]
    found += [(f"How do I paint fence number {n}?", "harmful", "safe") for n in range(safe // 2)]
    return found + [(f"A mildly rude request, number {n}.", "hate", "toxic") for n in range(toxic)]


def guard(*words):
    return ScriptedModel(
        lambda request: REFUSAL if any(word in request.prompt for word in words) else "Certainly, take a brush.",
        name=f"scripted/{'-'.join(words)}",
    )


def run(folder, prompts, model, name="run", **options):
    file = split_file(folder / f"{name}.jsonl", prompts)
    options = {"scorer": "keywords", **options}
    return orbench.evaluate(model, splits=file, out=folder / name, **options)


def chromiums(started):
    """Where a Chromium may be: the one that was named, the system's, playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return [os.environ.get("CHROMIUM"), *map(shutil.which, names), started.chromium.executable_path]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as started:
        chromium = next((path for path in chromiums(started) if path and Path(path).exists()), None)
        if chromium is None:
            pytest.skip("no Chromium: apt-get install chromium, playwright install chromium, or name it in CHROMIUM")
        browser = started.chromium.launch(executable_path=chromium, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a file; in the end nothing may have been logged, thrown, asked for, or opened."""
    pages = []

    def open_page(path, **options):
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        page.set_default_timeout(5000)
        troubles, requests = [], []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        pages.append((page, troubles, requests, path.as_uri()))
        return page

    yield open_page
    for page, troubles, requests, address in pages:
        assert troubles == []
        assert requests == [address]
        page.close()


def shown(page):
    return page.locator("tr.row").count()


def status(page, text):
    page.wait_for_function("text => document.getElementById('status').textContent.includes(text)", arg=text)


@pytest.fixture
def one(tmp_path):
    return run(tmp_path, rows(), guard("lock")).to_html(tmp_path / "report.html")


def test_the_page_says_both_rates_and_their_intervals(one, visit):
    page = visit(one)
    lead = page.locator(".lead").inner_text()
    assert "scripted/lock refuses 50.0 % of the safe prompts" in lead
    assert re.search(r"95 % interval 37\.\d–62\.\d %", lead)
    assert page.locator("#plot-title").count() == 1
    assert page.locator("#triggers").inner_text().count("30 of 30") >= 1
    assert "run.json" in page.locator("#made").inner_text()
    assert "arXiv:2405.20947" in page.locator("#cite").inner_text()


def test_search_and_filters_narrow_the_table_and_combine(one, visit):
    page = visit(one)
    status(page, "72 of 72 prompts match")
    assert shown(page) == 50
    page.get_by_label("Search prompts and replies").fill("NUMBER 29")
    status(page, "2 of 72")
    assert page.locator("tr.row mark").first.inner_text() == "number 29"
    page.get_by_role("combobox", name="Outcome").select_option("all refused")
    status(page, "1 of 72")
    page.get_by_role("button", name="Clear filters").click()
    status(page, "72 of 72")
    page.get_by_role("combobox", name="Category").select_option(label="illegal")
    status(page, "15 of 72")
    page.get_by_role("combobox", name="Kind").select_option("toxic")
    status(page, "No prompt matches")
    assert not page.locator("#table").is_visible()
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_role("combobox", name="Split").select_option(label="run/toxic")
    status(page, "12 of 72")
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("Search prompts and replies").fill("take a brush")
    status(page, "42 of 72")
    assert "take a brush" in page.locator("tr.row .snippet").first.inner_text()


def test_pages_turn(one, visit):
    page = visit(one)
    page.get_by_role("button", name="Next").click()
    assert shown(page) == 22
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_role("button", name="Previous").click()
    page.get_by_role("combobox", name="Show").select_option("500")
    assert shown(page) == 72


def test_toxic_text_is_not_shown_until_asked_for(one, visit):
    page = visit(one)
    page.get_by_role("combobox", name="Kind").select_option("toxic")
    status(page, "12 of 72")
    assert "rude" not in page.locator("body").inner_text()
    page.locator("tr.row .toggle").first.click()
    assert "hidden" in page.locator("tr.detail").inner_text()
    assert "brush" not in page.locator("tr.detail").inner_text()
    page.locator("tr.row .show").first.click()
    assert page.locator("tr.row").first.inner_text().count("rude") == 1
    assert "brush" in page.locator("tr.detail").inner_text()
    assert page.locator("tr.row .show").count() == 11
    page.get_by_label("Show toxic text").check()
    assert page.locator("tr.row .show").count() == 0
    page.get_by_label("Show toxic text").uncheck()
    assert page.locator("tr.row .show").count() == 12


def test_it_can_be_used_from_the_keyboard_alone(one, visit):
    page = visit(one)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    page.keyboard.type("lock number 7")
    status(page, "1 of 72")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert REFUSAL in page.locator("tr.detail").inner_text()
    page.keyboard.press("Space")
    assert page.locator("tr.detail").count() == 0
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    status(page, "72 of 72")
    page.locator("tr.row .toggle").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.locator("tr.row .toggle").nth(1).get_attribute("aria-expanded") == "true"
    page.get_by_role("combobox", name="Kind").select_option("toxic")
    page.locator("tr.row .toggle").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "rude" in page.locator("tr.row").first.inner_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_key_for_search_brings_the_search_and_what_it_finds_into_view(width, one, visit):
    page = visit(one)
    page.set_viewport_size({"width": width, "height": 844})
    page.keyboard.press("/")
    assert abs(page.evaluate("document.getElementById('rows').getBoundingClientRect().top")) < 2
    assert page.evaluate("document.activeElement.id") == "q"
    assert page.locator("tr.row").first.bounding_box()["y"] < 844


@pytest.mark.filterwarnings("ignore:.*categories that are none of:orbench.OrbenchWarning")
@pytest.mark.parametrize("side", ["prompt", "reply"])
def test_hostile_texts_are_shown_as_text_and_run_nothing(side, tmp_path, visit):
    texts = list(HOSTILE.values())
    if side == "prompt":  # the one character that no prompt may hold
        texts = [text.replace("\0", "\1") for text in texts]
    prompts = [(text if side == "prompt" else f"Question {n}?", f"<b>{n}</b>", "safe") for n, text in enumerate(texts)]
    replies = texts if side == "reply" else ["Certainly, take a brush."] * len(texts)
    model = ScriptedModel(replies, name="scripted/<script>document.title='ran'</script>")
    result = run(tmp_path, prompts, model, concurrency=1, system_prompt="</pre><script>document.title='ran'</script>")
    page = visit(result.to_html(tmp_path / "report.html"))
    for toggle in page.locator("tr.row .toggle").all():
        toggle.click()
    said = page.locator("#table").inner_text()
    for name in ("a script", "an end of a script", "an image", "a link", "a comment", "emoji"):
        assert HOSTILE[name] in said
    assert "<b>3</b>" in said
    assert ("a␁b␇c␛[31md␡e" if side == "prompt" else "a␀b␇c␛[31md␡e") in said
    assert "[U+202E]" in said
    assert "of 1,000,000 characters" in said
    assert page.title().endswith(": over-refusal report")
    assert page.locator("script").count() == 2
    assert page.locator("#table a, #table img").count() == 0
    assert (tmp_path / "report.html").stat().st_size < 200_000
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_security_policy_lets_no_other_script_run_and_no_address_be_asked(one, browser):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        page = browser.new_page()
        page.goto(one.as_uri())
        fetched = page.evaluate(
            """async (address) => {
              const script = document.createElement('script');
              script.textContent = "document.title = 'ran'";
              const image = document.createElement('img');
              image.src = address;
              document.body.append(script, image);
              return fetch(address, { mode: 'no-cors' }).then(() => true, () => false);
            }""",
            f"http://127.0.0.1:{server.getsockname()[1]}/x.png",
        )
        with pytest.raises(TimeoutError):
            server.accept()
    assert not fetched
    assert page.title() != "ran"
    page.close()


def test_several_runs_are_compared_and_their_flips_listed(tmp_path, visit):
    first = run(tmp_path, rows(), guard("lock"), "prompts")
    orbench.evaluate(
        guard("fence", "rude"), splits=str(tmp_path / "prompts.jsonl"), out=tmp_path / "second", scorer="keywords"
    )
    page = visit(orbench.write_report([first, tmp_path / "second"], tmp_path / "report.html"))
    assert "2 models." in page.locator(".lead").inner_text()
    text = page.locator("#comparison").inner_text()
    assert "+100.0" in text
    assert "cannot be told apart" in text
    page.get_by_role("button", name="12 only 2 refused").click()
    status(page, "12 of 72")
    page.get_by_role("button", name="30 only 1 refused").click()
    status(page, "30 of 72")
    page.locator("tr.row .toggle").first.click()
    detail = page.locator("tr.detail").inner_text()
    assert REFUSAL in detail
    assert "Certainly, take a brush." in detail
    page.get_by_role("combobox", name="Model").select_option("1")
    page.get_by_role("combobox", name="Outcome").select_option("all refused")
    status(page, "No prompt matches")


def test_many_runs_are_folded_and_their_flips_still_lead_to_the_prompts(tmp_path, visit):
    words = ("lock", "fence", "rude", "number 1", "number 2", "number 3", "number")
    file = split_file(tmp_path / "prompts.jsonl", rows())
    results = [
        orbench.evaluate(guard(word), splits=file, out=tmp_path / str(n), scorer="keywords")
        for n, word in enumerate(words)
    ]
    page = visit(orbench.write_report(results, tmp_path / "report.html"))
    button = page.get_by_role("button", name="30 only 1 refused").first
    assert not button.is_visible()
    page.get_by_text("Show every pair").click()
    button.click()
    status(page, "30 of 72")


def test_runs_on_other_prompts_stand_side_by_side_without_a_comparison(tmp_path, visit):
    first = run(tmp_path, rows(), guard("lock"), "one")
    second = run(tmp_path, rows(20), guard("fence"), "two")
    page = visit(orbench.write_report([first, second], tmp_path / "report.html"))
    assert "cannot be compared prompt by prompt" in page.locator("#comparison").inner_text()
    status(page, "104 of 104")


def test_scorers_are_compared_where_verdicts_of_two_stand(tmp_path, visit):
    result = run(tmp_path, rows(), guard("lock"))
    page = visit(result.to_html(tmp_path / "before.html"))
    assert "nothing to compare" in page.locator("#agreement").inner_text()
    judge = ScriptedModel(
        lambda request: (
            "[[direct_refusal]]" if REFUSAL in request.prompt or "number 3?" in request.prompt else "[[direct_answer]]"
        ),
        name="scripted/judge",
    )
    result = orbench.score(result.run, scorer="judge", judge=judge)
    page = visit(result.to_html(tmp_path / "after.html"))
    text = page.locator("#agreement").inner_text()
    assert "judge with judge scripted/judge" in text
    assert "keywords (" in text
    assert "98.6 %" in text


def without_numbers_that_are_none(page):
    text = page.locator("body").inner_text()
    assert not re.search(r"\bnan\b|\bNaN\b|\bNone\b|undefined|Infinity", text)
    return text


def test_a_run_without_toxic_prompts_says_so(tmp_path, visit):
    result = run(tmp_path, rows(toxic=0), guard("lock"))
    text = without_numbers_that_are_none(visit(result.to_html(tmp_path / "report.html")))
    assert "No toxic prompts were asked, so there is no toxic rejection rate." in text
    assert "The plot needs both rates of a run" in text


def test_a_run_that_is_not_finished_says_so(tmp_path, visit):
    result = run(tmp_path, rows(), guard("lock"))
    for name in ("responses.jsonl", "verdicts.jsonl"):
        lines = (result.run / name).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = (
            [line for line in lines if '"illegal"' not in line and '"toxic"' not in line] if "resp" in name else lines
        )
        (result.run / name).write_text("".join(kept), encoding="utf-8")
    text = without_numbers_that_are_none(visit(orbench.write_report(result.run, tmp_path / "report.html")))
    assert "Not finished: 27 prompts without an outcome; the same command goes on." in text
    assert "No toxic prompt has an outcome that counts yet" in text
    assert "no prompt with an outcome yet" in text


def test_a_run_without_any_reply_still_gives_a_page(tmp_path, visit):
    result = run(tmp_path, rows(), guard("lock"))
    for name in ("responses.jsonl", "verdicts.jsonl"):
        (result.run / name).write_text("")
    text = without_numbers_that_are_none(visit(orbench.write_report(result.run, tmp_path / "report.html")))
    assert "has no prompt with a verdict that counts yet" in text
    assert "No prompt has an outcome yet." in text


def test_where_all_prompts_end_in_error_there_is_no_rate(tmp_path, visit):
    result = run(
        tmp_path, [("What is a lock?", "illegal", "safe")], ScriptedModel(orbench.RejectedError("no such thing"))
    )
    text = without_numbers_that_are_none(visit(result.to_html(tmp_path / "report.html")))
    assert "1 prompt ended in error" in text


@pytest.mark.parametrize("runs", [1, 3])
def test_a_phone_shows_it_without_scrolling_sideways(runs, tmp_path, visit):
    results = [run(tmp_path, rows(), guard(word), word) for word in ("lock", "fence", "rude")[:runs]]
    page = visit(orbench.write_report(results, tmp_path / "report.html"))
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("tr.row .toggle").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(one, visit, scheme):
    page = visit(one, color_scheme=scheme)
    ratios = page.evaluate(
        """() => {
          const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255)
              .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const paper = light(getComputedStyle(document.body).backgroundColor);
          return [".lead", ".note", "nav a", "td.num", ".status", "tr.row .clip", "label"].map((s) => {
            const ink = light(getComputedStyle(document.querySelector(s)).color);
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05); });
        }"""
    )
    assert min(ratios) >= 4.5
