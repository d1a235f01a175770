"""The viewer in a real browser: clicks, keys, filters and links, and text that tries to be more than text."""

from __future__ import annotations

import json

import pytest
from headless_browser import PHONE, Browser, chromium
from test_view_server import serving
from view_runs import HOSTILE, measured, played, write_audit, write_credit, write_evaluation, write_run

from steppo_gym.view.export import export
from steppo_gym.view.run_folder import open_runs

pytestmark = pytest.mark.browser

WIN = [("A lamp.", "<think>light</think><action>take lamp</action>"), ("Taken.", "<action>use lamp</action>")]
LOSE = [("A lamp.", "<action>take sofa</action>"), ("You cannot.", "sit"), ("Nothing.", "sit")]
GROUP = [
    played("cellar-1", WIN, success=True, group=0),
    played("cellar-1", LOSE, ended="truncated", group=0, invalid=(1, 2)),
    *(played(f"attic-{n}", WIN, success=True, group=n) for n in range(2, 62)),
]
TRUTH = [
    measured(1, 2, (0.0, -0.1, 0.1), verdict="open"),
    measured(1, 0, (-0.375, -0.5, -0.25), "<action>take lamp</action>", HOSTILE),
]
RUN_ROWS = ("tbody tr:nth-of-type(1)", "tbody tr:nth-of-type(2)")
BEFORE = {"greedy": {"test": {"success": 0.1}}, "sampled": {"test": {"success": 0.2}}}
AFTER = {"greedy": {"test": {"success": 0.3}, "rare": {"success": 0.2}}, "sampled": {"test": {"success": 0.7}}}
LONG = [played("maze", [(f"corridor {n}", "walk") for n in range(95)], group=0)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    hostile = [played(HOSTILE, [(HOSTILE, HOSTILE), ("x" * 1_000_000, "<b>look</b>")], group=0)]
    first = write_run(base / "first", {"iteration-0001": LONG, "iteration-0002": GROUP})
    audit = write_audit(base / "audit", GROUP, TRUTH)
    write_credit(audit / "episodes.credit.npz", GROUP, 2)
    second = write_run(base / "second", {"iteration-0001": hostile}, algorithm="GRPO")
    for run in (first, second):
        (run / "evaluation_before.json").write_text(json.dumps(BEFORE))
        with (run / "metrics.jsonl").open("a") as metrics:
            scores = {"eval_test_success": 0.4, "eval_test_door_success": 1.0}
            metrics.write(json.dumps({"update": 1, "iteration": 1.0, **scores}) + "\n")
    (first / "summary.json").write_text(json.dumps({"after": AFTER}))
    return first, second, audit


@pytest.fixture(scope="module", params=["server", "file"])
def page(request, folders, tmp_path_factory):
    """The address of the same page, served and as one file."""
    if request.param == "file":
        path = tmp_path_factory.mktemp("page") / "page.html"
        path.write_text(export(open_runs(folders))[0], encoding="utf-8")
        yield path.as_uri()
        return
    with serving(*folders) as server:
        yield f"{server.url}/"


@pytest.fixture(autouse=True)
def quiet(browser):
    """No test leaves an error in the console, nor anything the policy of the page had to refuse."""
    browser.complaints()
    yield
    assert browser.complaints() == []


def arrive(browser: Browser, address: str) -> None:
    """Open an address as if it had been typed into a new window."""
    browser.open("about:blank")
    browser.open(address)


def test_runs_stand_side_by_side(browser, page):
    arrive(browser, page)
    browser.wait_text("h2", "Settings that differ")
    rows = browser.texts("section:nth-of-type(2) tbody tr")
    assert rows == ["algorithmStepPOGRPO"]
    assert browser.script("return document.querySelectorAll('.charts path.line').length") >= 2
    head, first, second = (browser.texts(f"section:nth-of-type(1) {row} > *") for row in ("thead tr", *RUN_ROWS))
    cells = [dict(zip(head, row, strict=True)) for row in (first, second)]
    assert [cell["success in the last iteration"] for cell in cells] == ["10.0 %", "5.0 %"]
    # Where training is over it is what it came to, else what was last measured.
    evaluated = [cell["greedy success in the last evaluation"] for cell in cells]
    assert evaluated == ["test 30.0 %, after training; rare 20.0 %, after training", "test 40.0 %, iteration 1"]
    before = len(browser.all(".charts figure"))
    browser.script(
        "const s = document.getElementById('metric'); s.value = 'entropy'; s.dispatchEvent(new Event('change'))"
    )
    assert len(browser.all(".charts figure")) == before + 1


def test_evaluations_stand_apart_from_runs(browser, folders, tmp_path):
    done = write_evaluation(tmp_path / "done", GROUP, model="runs/first/final")
    going = write_evaluation(tmp_path / "going", GROUP, model="runs/first/final")
    (going / "summary.json").unlink()
    path = tmp_path / "page.html"
    path.write_text(export(open_runs([folders[0], done, going]))[0], encoding="utf-8")
    arrive(browser, path.as_uri())
    browser.wait_text("h2", "Evaluations")
    assert browser.texts("section:nth-of-type(2) tbody td") == [
        "done", "lamps-test", "runs/first/final", "98.4 %", "91.4 % to 99.7 %", "look at them",
        "going", "lamps-test", "runs/first/final", "\u2013", "not done", "look at them",
    ]  # fmt: skip
    assert "Settings that differ" not in browser.texts("h2")
    browser.click("section:nth-of-type(2) tbody a")
    browser.wait(lambda: "lamps-test" in browser.script("return location.hash"))


def test_a_failure_is_found_understood_and_linked(browser, page, tmp_path):
    arrive(browser, page)
    browser.click("section a[href*='first/iteration-0002']")
    browser.wait_text("#count", "62 episodes")
    browser.click(".filters a.button")
    browser.wait_text("#count", "1 of 62 episodes")
    browser.click("tr[data-number='1'] a")
    browser.wait_text("h1", "Episode 1")
    assert browser.texts("article.step h3 a") == ["Step 0", "Step 1", "Step 2"]
    # Why it failed: what its mate did in the same state.
    browser.click("#step-0 button.same")
    browser.wait_text("#step-0 .mate", "take lamp")
    assert len(browser.all("#step-0 .mate")) == 2
    assert "Invalid: Expected one action." in browser.texts("#step-1 .invalid")
    # Step 1 of line 1 is the fourth of the recorded ones.
    assert browser.texts("#step-1 .actions li")[0] == "go" and len(browser.texts("#step-1 .actions li")) == 2
    assert browser.texts("#step-2 .actions .taken") == ["sit"]
    browser.click("#step-1 h3 a")
    browser.wait(lambda: browser.all("#step-1.chosen"))
    link = browser.driver.current_url
    assert link.endswith("/1/1?success=no")
    arrive(browser, link)
    browser.wait(lambda: browser.all("#step-1.chosen"))
    assert "step 1 · episode 1" in browser.driver.title
    browser.screenshot(tmp_path / "failure.png")


def test_filters_and_search_are_part_of_the_address(browser, page):
    arrive(browser, f"{page}#/run/first/iteration-0002.jsonl?text=you%20cannot")
    browser.wait_text("#count", "1 of 62 episodes")
    assert "step 1" in browser.texts("tr[data-number='1']")[0]
    browser.script("document.querySelector('[name=text]').value = ''")
    browser.script(
        "const s = document.querySelector('[name=max_steps]'); s.value = '2'; "
        "s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    browser.wait_text("#count", "61 of 62 episodes")
    assert browser.driver.current_url.endswith("?max_steps=2")
    assert len(browser.all("tr[data-number]")) == 50
    browser.click(".pager a:last-of-type")
    browser.wait(lambda: len(browser.all("tr[data-number]")) == 11)
    browser.click("th:nth-of-type(2) a")
    browser.wait_text("tr[data-number] td.task", "attic-10")
    browser.driver.back()
    browser.wait(lambda: len(browser.all("tr[data-number]")) == 11)


def test_keys_move_through_list_and_episode(browser, page):
    arrive(browser, f"{page}#/run/first/iteration-0002.jsonl?max_steps=2")
    browser.wait_text("#count", "61 of 62")
    browser.press("j", "j", "k", "j", "\ue007")
    browser.wait_text("h1", "Episode 2")
    browser.press("j", "j")
    browser.wait(lambda: browser.all("#step-1.chosen"))
    browser.press("j")
    assert browser.all("#step-1.chosen")
    browser.press("n")
    browser.wait_text("h1", "Episode 3")
    browser.press("p", "p")
    browser.wait_text("h1", "Episode 0")
    browser.press("?")
    browser.wait(lambda: browser.script("return document.getElementById('help').open"))
    browser.click("#help button")
    browser.press("u")
    browser.wait_text("#count", "61 of 62")
    browser.press("/")
    assert browser.script("return document.activeElement.name") == "text"


def test_tokens_are_colored_by_what_is_chosen(browser, page):
    arrive(browser, f"{page}#/run/first/iteration-0002.jsonl/1")
    browser.wait_text("h1", "Episode 1")
    colors = lambda: browser.script(  # noqa: E731
        "return [...document.querySelectorAll('#step-1 .token')].map((one) => getComputedStyle(one).backgroundColor)"
    )
    assert browser.script("return document.getElementById('color').value") == "advantage"
    by_advantage = colors()
    assert len(set(by_advantage)) == 3
    browser.press("c")
    browser.wait(lambda: browser.script("return document.getElementById('color')?.value") == "ratio")
    browser.wait(lambda: browser.all("#step-1 .token.minus"))
    assert len(set(colors())) == 1 and colors() != by_advantage
    browser.click("#step-1 .token")
    (told,) = browser.texts("#step-1 .token-detail")
    assert told.startswith('token 0 "s" · advantage ') and "importance ratio 0.5" in told


def test_the_whole_prompt_marks_what_is_new(browser, page):
    arrive(browser, f"{page}#/run/first/iteration-0002.jsonl/1/2")
    browser.click("#step-2 button.whole")
    browser.wait_text("#step-2 mark", "Nothing.")
    assert browser.texts("#step-2 .whole-prompt") == ["A lamp.<action>take sofa</action>You cannot.sitNothing.sit"]


def test_long_episodes_come_in_pages(browser, page):
    arrive(browser, f"{page}#/run/first/iteration-0001.jsonl/0/47")
    browser.wait(lambda: browser.all("#step-47.chosen"))
    assert browser.texts("article.step h3 a")[0] == "Step 40" and len(browser.all("article.step")) == 20
    browser.press("/")
    browser.script("document.getElementById('find').value = 'corridor 91'")
    browser.click(".toolbar button")
    browser.wait(lambda: browser.all("#step-91.chosen"))
    browser.script("document.getElementById('find').value = 'no such place'")
    browser.click(".toolbar button")
    browser.wait_text("#message", 'No step of this episode has "no such place"')


def test_steps_that_a_file_leaves_out_are_named(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("steppo_gym.view.export.MOST_STEPS", 50)
    monkeypatch.setattr("steppo_gym.view.export.PAGE", 50)
    run = write_run(tmp_path / "run", {"iteration-0001": LONG})
    (tmp_path / "page.html").write_text(export(open_runs([run]))[0], encoding="utf-8")
    page = f"{(tmp_path / 'page.html').as_uri()}#/run/run/iteration-0001.jsonl/0"
    for step, shown in ((0, 20), (40, 10), (60, 0)):
        arrive(browser, f"{page}/{step}")
        browser.wait_text("p.facts", "95 steps")
        assert len(browser.all("article.step")) == shown
        notes = [note for note in browser.texts("p.note") if note.startswith("The other steps of this episode are not")]
        assert len(notes) == (shown < 20)


def test_hostile_text_is_text(browser, page):
    arrive(browser, f"{page}#/run/second/iteration-0001.jsonl/0")
    browser.wait_text("h1", "<script>window.hacked = 1</script>")
    assert browser.script("return window.hacked") is None
    assert not browser.all("main img") and not browser.all("main script") and not browser.all("pre b")
    (shown,) = browser.texts("#step-0 .observation pre")
    assert shown.startswith("<script>window.hacked = 1</script><img src=x onerror=")
    # Characters that would not show, or would turn others around, are symbols.
    assert "\u2400\u2407\u241b[31mred" in shown and "\u27e8U+202E\u27e9" in shown
    assert not [character for character in shown if ord(character) < 32 or character in "\u202e\u2028\x7f"]
    assert "&lt;b&gt;" in shown and "😀\u27e8U+E0041\u27e9" in shown
    (note,) = browser.texts("#step-1 .observation .note")
    assert note.startswith("20000 of 1000000 characters")


WHERE = [
    "",
    "#/run/first/iteration-0002.jsonl",
    "#/run/first/iteration-0002.jsonl/1/1",
    "#/run/audit/episodes.jsonl/1/0",
]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_readable_at_every_width_and_in_the_dark(browser, page, where, dark, tmp_path):
    browser.look(dark=dark, phone=True)
    try:
        arrive(browser, page + where)
        browser.wait(lambda: browser.all("main h1, main h2"))
        # Nothing is wider than the phone, but for tables that scroll in their place.
        assert browser.script("return document.documentElement.scrollWidth") <= PHONE["width"]
        light = browser.script(
            "const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g);"
            "return (+r + +g + +b) / 765"
        )
        assert light < 0.2 if dark else light > 0.9
        browser.screenshot(tmp_path / "phone.png")
    finally:
        browser.look()


def test_the_truth_of_an_audit_stands_beside_the_credit(browser, page, tmp_path):
    arrive(browser, page)
    browser.wait_text("h2", "Audit audit")
    steps = browser.texts("section:last-of-type h3 ~ div tbody tr")
    # The step that matters comes first, though it stands second in the file.
    assert steps[0].startswith("episode 1, step 0matters0.5") and steps[1].startswith("episode 1, step 2open")
    assert "\u22120.375 (\u22120.5 to \u22120.25)" in steps[0]
    # Runs are compared with runs: an audit has none of their settings.
    assert browser.texts("section:nth-of-type(2) tbody tr") == ["algorithmStepPOGRPO"]
    browser.click("section:last-of-type h3 ~ div tbody a")
    browser.wait(lambda: browser.all("#step-0.chosen"))
    # Advantage in training, line 1 step 0 of the credit, and the measured one with its interval.
    assert "advantage 1 \u00b7 A* \u22120.375 (\u22120.5 to \u22120.25)" in browser.texts("#step-0 h3 small")[0]
    (label,) = browser.texts("#step-0 .truth .label")
    assert label == "audit: the choice matters here"
    arms, rules = (browser.texts(f"#step-0 .truth {place} tbody tr") for place in ("> .scroll", "details"))
    assert arms[0].startswith("takentaken5 of 80.125") and "take lamp" in arms[1] and "<script>" in arms[2]
    assert len(browser.all("#step-0 .truth svg.interval")) == 3
    assert rules == [
        "in training1\u2013wrong", "steppo\u22120.75 \u00b1 0.125\u22120.25right", "grpo0 \u00b1 00none",
    ]  # fmt: skip
    assert not browser.all("#step-1 .truth") and "A* may be 0" in browser.texts("#step-2 .truth details tbody tr")[0]
    assert {"V*, measured", "A*, measured", "critic's value"} <= set(browser.texts(".along .legend li"))
    assert len(browser.all(".along line.bar")) == 2
    assert browser.texts("p.audited a") == ["step 0", "step 2"]
    browser.press("u")
    browser.wait_text("#count", "62 episodes")
    assert browser.texts("tr[data-number='1'] td:last-child") == ["2"]
    assert browser.script("return window.hacked") is None


def test_what_is_not_there_is_said(browser, page):
    arrive(browser, f"{page}#/run/first/iteration-0002.jsonl/999")
    browser.wait(lambda: browser.script("return !document.getElementById('message').hidden"))
    assert "999" in browser.texts("#message")[0]
    if not page.startswith("file:"):
        # The browser itself notes the answer's status.
        assert "400" in browser.complaints()[0]
