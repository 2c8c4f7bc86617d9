"""A real browser clicks and keys its way through; the server is a real process that gets killed."""

import json
import signal
import time

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


def show(browser, url, size="desktop"):
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(url)
    until(lambda: ready(browser))


def until(condition, patience=20):
    end = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.02)
    return value


def js(browser, script, *args):
    return browser.execute_script(script, *args)


def ready(browser):
    """Whether a question can be answered, or the sitting is over."""
    return js(
        browser,
        "return !document.getElementById('same').disabled"
        " || !document.getElementById('over').hidden",
    )


def question(browser):
    return js(browser, "return document.body.dataset.query")


def press(browser, key):
    ActionChains(browser).send_keys(key).perform()


def click(browser, selector):
    browser.find_element(By.CSS_SELECTOR, selector).click()


def change(browser, act):
    """Do something that brings another question; return the one that was there."""
    before = question(browser)
    act(browser)
    until(lambda: question(browser) != before and ready(browser))
    return before


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def said(row):
    if row.get("skipped"):
        return "skip"
    return {0: "left", 1: "right", None: "same"}[row["preferred"]]


def name_of(row):
    return "pair-{}-{}".format(*row["episodes"])


WAYS = [
    ("left", lambda b: press(b, Keys.ARROW_LEFT)),
    ("right", lambda b: press(b, Keys.ARROW_RIGHT)),
    ("same", lambda b: press(b, Keys.ARROW_DOWN)),
    ("skip", lambda b: press(b, Keys.ARROW_UP)),
    ("skip", lambda b: press(b, "x")),
    ("left", lambda b: click(b, "button.panel.left")),
    ("right", lambda b: click(b, "button.panel.right")),
    ("left", lambda b: click(b, "#left-better")),
    ("right", lambda b: click(b, "#right-better")),
    ("same", lambda b: click(b, "#same")),
    ("skip", lambda b: click(b, "#skip")),
]
BACK = [
    lambda b: press(b, "z"),
    lambda b: press(b, Keys.BACKSPACE),
    lambda b: click(b, "#undo"),
    lambda b: ActionChains(b).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform(),
]


def test_twenty_comparisons_with_a_kill_in_the_middle(browser, program, dataset, tmp_path):
    """Every way to answer and to undo; the file always holds what was answered and no more."""
    path = tmp_path / "p.jsonl"
    argv = (f"--dataset.root={dataset}", f"--output={path}", "--count=20")
    expected = []  # (question, answer)

    def follow(turns):
        for turn in turns:
            choice, act = WAYS[turn % len(WAYS)]
            expected.append((change(browser, act), choice))
            if turn % 4 == 3:
                last = expected.pop()
                change(browser, BACK[turn // 4 % len(BACK)])
                assert question(browser) == last[0]
            assert [(name_of(r), said(r)) for r in rows(path)] == expected

    with program(*argv) as (process, url):
        show(browser, url)
        follow(range(14))
        asked = question(browser)
        process.send_signal(signal.SIGKILL)
        process.wait()
        press(browser, Keys.ARROW_LEFT)
        alarm = browser.find_element(By.ID, "alarm")
        until(alarm.is_displayed)
        assert "All answers so far are saved" in alarm.text
    assert [(name_of(r), said(r)) for r in rows(path)] == expected
    with program(*argv) as (process, url):
        show(browser, url)
        assert question(browser) == asked
        turn = 14
        while sum(choice != "skip" for _, choice in expected) < 20:
            follow([turn])
            turn += 1
        over = until(lambda: browser.find_element(By.ID, "over"))
        until(over.is_displayed)
        assert "All 20 answered and saved." in over.text
        change(browser, BACK[0])
        expected.pop()
        choice, act = WAYS[0]
        expected.append((change(browser, act), choice))
        click(browser, "#finish")
        rest = process.stdout.read()
        assert process.wait(20) == 0
        assert f"20 answers, {len(expected) - 20} skipped: {path}" in rest
    assert [(name_of(r), said(r)) for r in rows(path)] == expected
    pairs = [frozenset(r["episodes"]) for r in rows(path)]
    assert len(pairs) == len(set(pairs)) >= 20
    assert all(0 < r["seconds"] < 60 for r in rows(path))


@pytest.fixture(scope="module")
def served(program, dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "p.jsonl"
    with program(f"--dataset.root={dataset}", f"--output={path}") as (_, url):
        yield url, path


@pytest.mark.parametrize("size", SIZES)
def test_it_loads_alone_and_fits_the_screen(browser, served, size):
    url, _ = served
    show(browser, url, size)
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    sent = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = [
        m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"
    ]
    own = url.rsplit("/", 2)[0]
    assert {u for u in urls if not u.startswith((own, "data:", "about:"))} == set()
    stray = js(
        browser,
        """return [...document.querySelectorAll('body *')].filter((n) => {
          const box = n.getBoundingClientRect();
          return n.checkVisibility() && !n.closest('#views') && !n.closest('#toast')
            && (box.right > innerWidth + 1 || box.bottom > innerHeight + 1 || box.left < -1);
        }).map((n) => n.id || n.className)""",
    )
    assert stray == []


PANELS = """return [...document.querySelectorAll('.panel')].map((p) => ({
  episode: Number(p.dataset.episode), frame: Number(p.dataset.frame),
  pixels: [...p.querySelectorAll('canvas')].filter((c) => !c.hidden).map((c) =>
    [c.dataset.view, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]),
}))"""


def check_pictures(browser, episodes, views):
    """What is on the screen is the frame of the dataset that belongs to the shared time."""
    for panel in js(browser, PANELS):
        episode = episodes[panel["episode"]]
        assert [name for name, *_ in panel["pixels"]] == list(views)
        for name, *rgba in panel["pixels"]:
            frame = episode.views[name][panel["frame"]]
            drawn = [v for i, v in enumerate(rgba) if i % 4 < 3]
            assert drawn == frame.ravel().tolist()


def test_clips_play_in_step_and_show_the_datasets_own_pixels(browser, served, episodes):
    show(browser, served[0])
    until(lambda: js(browser, PANELS)[0]["frame"] >= 2)
    press(browser, " ")  # pause
    frames = [panel["frame"] for panel in js(browser, PANELS)]
    lengths = [len(episodes[panel["episode"]]) for panel in js(browser, PANELS)]
    time.sleep(0.3)
    check_pictures(browser, episodes, ("front", "wrist"))
    assert [panel["frame"] for panel in js(browser, PANELS)] == frames
    for step in range(15):
        shown = [panel["frame"] for panel in js(browser, PANELS)]
        clock = max(shown)  # the datasets' rows all come at 10 Hz
        assert shown == [min(clock, length - 1) for length in lengths]
        press(browser, "." if step < 14 else "r")
    press(browser, " ")
    assert max(panel["frame"] for panel in js(browser, PANELS)) <= 6


def test_cameras_speed_and_slider(browser, served, episodes):
    show(browser, served[0])
    press(browser, " ")
    for views in (("front",), ("wrist",), ("front", "wrist")):
        press(browser, "v")
        check_pictures(browser, episodes, views)
    click(browser, "#views button:nth-child(3)")
    check_pictures(browser, episodes, ("wrist",))
    pressed = browser.find_elements(By.CSS_SELECTOR, "#views [aria-pressed=true]")
    assert [b.text for b in pressed] == ["wrist"]
    for key, text in (("]", "2×"), ("]", "4×"), ("[", "2×"), ("[", "1×"), ("[", "0.5×")):
        press(browser, key)
        assert browser.find_element(By.ID, "speed").text == text
    js(
        browser,
        "const s = document.getElementById('time'); s.value = 1000;"
        "s.dispatchEvent(new Event('input'))",
    )
    lengths = [len(episodes[panel["episode"]]) for panel in js(browser, PANELS)]
    assert [panel["frame"] + 1 for panel in js(browser, PANELS)] == lengths
    ended = browser.find_elements(By.CSS_SELECTOR, ".panel[data-ended] .end")
    assert len(ended) == 2


def test_keys_that_are_not_meant_do_nothing(browser, served):
    url, path = served
    show(browser, url)
    before, count = question(browser), len(rows(path))
    ActionChains(browser).key_down(Keys.ALT).send_keys(Keys.ARROW_LEFT).key_up(Keys.ALT).perform()
    js(browser, "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'x', repeat: true}))")
    press(browser, "?")
    until(lambda: js(browser, "return document.getElementById('help').open"))
    press(browser, Keys.ARROW_LEFT)
    press(browser, Keys.ESCAPE)
    time.sleep(0.3)
    assert (question(browser), len(rows(path))) == (before, count)


def test_two_windows_on_one_question_give_one_answer(browser, served):
    url, path = served
    show(browser, url)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        show(browser, url)
        count = len(rows(path))
        answered = change(browser, WAYS[0][1])
        following = question(browser)
        browser.switch_to.window(first)
        assert question(browser) == answered
        change(browser, WAYS[2][1])
        assert question(browser) == following
        assert len(rows(path)) == count + 1
        assert "another window" in browser.find_element(By.ID, "toast").get_attribute("textContent")
    finally:
        # Not `browser.close()`: it waits for the window's end, which a busy machine overruns.
        others = set(browser.window_handles) - {first}
        browser.switch_to.window(first)
        for handle in others:
            browser.execute_cdp_cmd("Target.closeTarget", {"targetId": handle})


@pytest.mark.slow
def test_triplets_show_the_anchor_between_its_sides(browser, program, dataset, tmp_path):
    path = tmp_path / "t.jsonl"
    argv = (f"--dataset.root={dataset}", f"--output={path}", "--mode=triplet", "--count=3")
    with program(*argv) as (_, url):
        show(browser, url)
        for choice, act in (WAYS[0], WAYS[6], WAYS[2]):
            left, anchor, right = (panel["episode"] for panel in js(browser, PANELS))
            browser.find_element(By.CSS_SELECTOR, "div.panel.anchor").click()  # no answer
            change(browser, act)
            row = rows(path)[-1]
            assert row["anchor"] == anchor
            closer = right if choice == "right" else left
            assert (row["closer"], {row["closer"], row["farther"]}) == (closer, {left, right})
            assert row.get("same", False) == (choice == "same")
        assert "All 3 answered" in browser.find_element(By.ID, "over").text
