"""The page in a real browser, at the width of a phone and of a desktop."""

import json

SECTIONS = ["metrics", "calibration", "views", "steps", "worst", "episodes", "probes", "training"]


def js(browser, script, *args):
    return browser.execute_script(script, *args)


def test_it_loads_alone_without_errors_or_requests(opened, page):
    assert [e for e in opened.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    sent = [json.loads(e["message"])["message"] for e in opened.get_log("performance")]
    urls = [
        m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"
    ]
    assert {u for u in urls if not u.startswith(("data:", "about:"))} == {page.as_uri()}


def test_nothing_sticks_out_sideways(opened):
    wide, width = js(opened, "return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= width
    # Whatever is wider than the screen must scroll inside its own box.
    stray = js(
        opened,
        """const width = document.documentElement.clientWidth;
        return [...document.querySelectorAll('main *')].filter((n) =>
          n.getBoundingClientRect().right > width + 1 && !n.closest('.scroll')).length""",
    )
    assert stray == 0


def test_every_section_is_there_and_linked(opened):
    ids = js(opened, "return [...document.querySelectorAll('main > section')].map((s) => s.id)")
    assert ids == SECTIONS
    links = js(opened, "return [...document.querySelectorAll('nav a')].map((a) => a.hash)")
    assert links == [f"#{name}" for name in SECTIONS]
    assert "[object" not in js(opened, "return document.body.innerText")


def test_the_table_holds_every_baseline_with_intervals(opened, document):
    heads = js(
        opened,
        "return [...document.querySelectorAll('#metrics table')[0].tHead.querySelectorAll('th')]"
        ".map((t) => t.textContent)",
    )
    assert heads == ["metric", *document["metrics"]["columns"]]
    assert {"time index", "pixel distance", "random", "constant"} <= set(heads)
    row = js(
        opened,
        "return [...document.querySelector('tr[data-metric=mae]').cells].map((c) => c.innerText)",
    )
    model = document["metrics"]["rows"][1]["cells"][0]
    numbers = [f"{model[key]:.2f}" for key in ("value", "low", "high")]
    assert row[1].replace("*", "").split() == [numbers[0], numbers[1], "to", numbers[2]]
    assert js(opened, "return document.querySelectorAll('#metrics abbr[title]').length") > 0


STATE = """
const card = document.getElementById('episode-1');
const cursor = card.querySelector('.cursor');
return {
  at: Number(card.querySelector('input[type=range]').value),
  said: card.querySelector('input[type=range]').getAttribute('aria-valuetext'),
  read: card.querySelector('[data-reads=progress]').textContent,
  x: Number(cursor.getAttribute('x1')),
  frame: card.querySelector('[data-frame]').textContent,
  picture: card.querySelector('canvas[data-view=front]').toDataURL(),
};"""


def check_state(state, row):
    t = row["frames"][state["at"]]
    assert state["frame"] == f"frame {t}"
    assert state["read"] == f"{row['curves']['potential'][t]:.2f}"
    assert state["said"].startswith(f"frame {t} of {row['length'] - 1}, {t / row['fps']:.2f} s")


def test_the_slider_moves_picture_readout_and_cursor(opened, document):
    from selenium.webdriver.common.keys import Keys

    row = document["episodes"][1]
    before = js(opened, STATE)
    check_state(before, row)
    slider = opened.find_element("css selector", "#episode-1 input[type=range]")
    slider.send_keys(Keys.ARROW_RIGHT * 5)
    keyed = js(opened, STATE)
    check_state(keyed, row)
    assert keyed["at"] == 5
    assert keyed["x"] > before["x"]
    assert keyed["picture"] != before["picture"]
    slider.send_keys(Keys.END)
    assert js(opened, STATE)["at"] == len(row["frames"]) - 1
    js(
        opened,
        "const s = document.querySelector('#episode-1 input[type=range]'); s.value = 2;"
        "s.dispatchEvent(new Event('input'))",
    )
    scripted = js(opened, STATE)
    check_state(scripted, row)
    assert before["x"] < scripted["x"] < keyed["x"]


def test_the_worst_come_first_and_their_links_lead_there(opened, document):
    listed = """return [...document.querySelectorAll('#worst-list tr[data-episode]')].map((r) =>
      [r.dataset.episode, r.cells[2].innerText, r.querySelector('a')?.hash])"""
    rows = js(opened, listed)
    errors = [float(mae) for _, mae, _ in rows]
    assert len(rows) == 6
    assert errors == sorted(errors, reverse=True)
    # Episode 5 has no pictures and therefore no link.
    assert {key: link for key, _, link in rows} == {
        f"episode-{i}": f"#episode-{i}" if i < 5 else None for i in range(6)
    }
    for link in opened.find_elements("css selector", "#worst-list a")[:1]:
        js(opened, "arguments[0].click()", link)
        target = js(opened, "return document.querySelector(':target').id")
        assert f"#{target}" == link.get_attribute("hash")
    js(opened, "document.querySelector('input[value=outcome]').click()")
    names = [key for key, _, _ in js(opened, listed)]
    assert names == document["worst"]["outcome"]
    assert names
    assert all(int(name[-1]) % 2 for name in names)  # false successes: the odd ones failed


def test_a_task_text_with_markup_is_only_text(opened):
    assert js(opened, "return window.hacked") is None
    title = js(opened, "return document.querySelector('h1').textContent")
    assert title.startswith("</script><script>window.hacked=1")
    assert js(opened, "return document.querySelectorAll('script').length") == 2
    assert js(opened, "return document.querySelectorAll('h1 *').length") == 0


def test_even_injected_markup_may_neither_run_nor_load(opened):
    """The content security policy stands behind the escaping."""
    js(
        opened,
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x\">')",
    )
    assert js(opened, "return window.hacked") is None
    refused = [e["message"] for e in opened.get_log("browser")]
    assert any("script-src" in m for m in refused)
    assert any("img-src" in m for m in refused)


def test_dark_mode_changes_the_paper_and_probes_show_pictures(opened):
    def paper(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return js(opened, "return getComputedStyle(document.body).backgroundColor")

    assert paper("dark") != paper("light")
    shown = js(
        opened,
        "return [...document.querySelectorAll('#probes img')].map((i) => i.naturalWidth)",
    )
    assert shown
    assert min(shown) > 0
    assert js(opened, "return document.querySelector('#steps img').naturalWidth") == 90
