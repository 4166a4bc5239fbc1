"""Looks at Tidemark's page in Chromium. tests/page.rs runs it, with a JSON object that says where and for what; by hand,
names of looks may follow."""

import json
import re
import sys
import time
import urllib.parse
import urllib.request

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

STAGE = json.loads(sys.argv[1])
BASE = STAGE["base"]
CHROMIUM = "/usr/bin/chromium"
PHONE = {"width": 375, "height": 800}
DESK = {"width": 1100, "height": 900}
WAIT_MS = 30_000


def api(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(BASE + path, data=data)) as response:
        return json.load(response)


def stats(video, **query):
    return api(f"/v1/videos/{urllib.parse.quote(video, safe='')}/stats?{urllib.parse.urlencode(query)}")


def digits(text):
    return int(re.sub(r"[^0-9]", "", text))


def post_one(video):
    now = int(time.time() * 1000)
    api("/v1/events", {"event_id": f"live-{now}", "video_id": video, "event_type": "view", "timestamp": now})


class Visit:
    """A browser's window. At its end nothing may have been asked of another host, and nothing may have gone wrong."""

    def __init__(self, browser, base=BASE, viewport=DESK, scheme="light", expected_errors=()):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce", timezone_id="Asia/Tokyo")
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.base, self.expected_errors, self.faults, self.asked = base, expected_errors, [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        self.page.on("console", self.heard)

    def heard(self, message):
        if message.type in ("error", "warning") and not any(text in message.text for text in self.expected_errors):
            self.faults.append(f"console: {message.text}")

    def open(self, fragment=""):
        self.page.goto(f"{self.base}/{fragment}")
        return self.page

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _traceback):
        if kind is None:
            foreign = [url for url in self.asked if not url.startswith(self.base + "/")]
            assert not foreign, f"asked of others: {foreign}"
            assert not self.faults, self.faults
        self.context.close()


def video_fragment(video, **params):
    return f"#/video/{urllib.parse.quote(video, safe='')}?{urllib.parse.urlencode(params)}"


VIEWS = {
    "overview": ("", lambda page: expect(page.locator("#partitions tr")).to_have_count(4)),
    "video": (
        video_fragment(STAGE["videos"][3], types="view,like", span="all"),
        lambda page: expect(page.locator("#totals li")).to_have_count(2),
    ),
    "top": ("#/top?span=all", lambda page: expect(page.locator("#top-body tr")).to_have_count(5)),
    "rising": ("#/rising", lambda page: expect(page.locator("#top-body tr a").first).to_be_visible()),
}


def picture(page, name):
    page.screenshot(path=f"{STAGE['pictures']}/page-{name}.png", full_page=True)


def overview_says_what_the_status_says(browser):
    with Visit(browser) as visit:
        page = visit.open()
        VIEWS["overview"][1](page)
        status = api("/v1/status")
        expect(page.locator("#counted")).to_have_text(f"{status['ledger']['counted']:,} counted of {status['ledger']['read']:,} read")
        assert status["ledger"]["late"] == 2 and status["ledger"]["future"] == 1 and status["ledger"]["duplicate"] == 3, status
        letters = dict(row.split("\t")[:2] for row in page.locator("#letters").inner_text().splitlines() if row)
        for reason in ("late", "future", "malformed", "oversize"):
            assert digits(letters[reason]) == status["ledger"][reason], (reason, letters)
        for at, row in zip(status["partitions"], page.locator("#partitions tr").all()):
            cells = row.locator("td").all_inner_texts()
            numbers = [digits(cells[place]) for place in (0, *range(2, 10))]
            names = ("read", "counted", "duplicate", "late", "future", "malformed", "oversize")
            assert numbers == [at["partition"], at["next_offset"], *(at["ledger"][name] for name in names)], (at, cells)
        expect(page.locator("#held-by")).to_contain_text(f"partition {status['watermark_held_by']['partition']}")
        expect(page.locator("#bottleneck")).to_have_text(status["bottleneck"])
        expect(page.locator("#watermark")).to_have_text(utc(status["watermark"]))
        # Nothing comes, so the rate is 0, and it is a number.
        expect(page.locator("#rate")).to_have_text("0")


def utc(ms):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000))


def a_video_is_searched_for_and_shown(browser):
    video = STAGE["videos"][3]
    with Visit(browser) as visit:
        page = visit.open("#/video")
        form = page.locator("#video-form")
        form.get_by_label("Video id").fill(video)
        form.get_by_label("Event types").fill("view, like")
        form.get_by_label("Span").select_option("all")
        page.keyboard.press("Enter")
        expect(page.locator("#totals li")).to_have_count(2)
        shown = [digits(text) for text in page.locator("#totals .value").all_inner_texts()]
        views, likes = (stats(video, event_type=event_type) for event_type in ("view", "like"))
        assert shown == [views["total"], likes["total"]] and 0 < likes["total"], (shown, views["total"], likes["total"])

        page.get_by_text("The same as a table").click()
        rows = [row.split("\t") for row in page.locator("#table-body").inner_text().splitlines() if row]
        points = {point["start"]: point for point in views["series"]}
        assert len(rows) == len(points), (len(rows), len(points))
        for (window, view, _like, state), start in zip(rows, sorted(points, reverse=True)):
            assert window == utc(start)[:16] and digits(view) == points[start]["value"], (window, view, points[start])
            assert state == ("final" if points[start]["final"] else "provisional"), (window, state)
        assert {state for *_, state in rows} == {"final", "provisional"}, "a curve has both"

        form.get_by_label("A point for each").select_option("hour")
        form.get_by_role("button", name="Show").click()
        hours = stats(video, granularity="hour")["series"]
        expect(page.locator("#table-body tr")).to_have_count(len(hours))


def the_slider_shows_it_as_it_was(browser):
    video = STAGE["videos"][0]
    with Visit(browser) as visit:
        page = visit.open(video_fragment(video, span="all"))
        expect(page.locator("#totals .value")).to_have_text(f"{stats(video)['total']:,}")
        slider = page.get_by_label("As of")
        slider.focus()
        page.keyboard.press("Home")
        expect(page.locator("#as-of-text")).to_contain_text("s back")
        asked = int(slider.input_value())
        then = stats(video, as_of=asked)
        assert then["total"] < stats(video)["total"], "events came after that frontier"
        expect(page.locator("#totals .value")).to_have_text(f"{then['total']:,}")
        expect(page.locator("#video-frontier")).to_contain_text(utc(then["as_of"]))
        page.get_by_role("button", name="Newest").click()
        expect(page.locator("#totals .value")).to_have_text(f"{stats(video)['total']:,}")


def lists_say_what_the_api_says_and_lead_to_the_video(browser):
    rising = api("/v1/top?order=rising&span=hour")
    hour_ms = 3_600_000
    assert rising["end"] - rising["start"] == hour_ms and rising["end"] - 60_000 < rising["as_of"] <= rising["end"], rising
    with Visit(browser) as visit:
        for view, wanted in (("top", api("/v1/top")["top"]), ("rising", rising["top"])):
            page = visit.open(VIEWS[view][0])
            expect(page.locator("#top-title")).to_have_text(view.capitalize())
            expect(page.locator("#top-body tr")).to_have_count(len(wanted))
            for row, each in zip(page.locator("#top-body tr").all(), wanted):
                cells = row.locator("td").all_inner_texts()
                link = row.locator("a").inner_text()
                assert link == each["video_id"] and digits(cells[2]) == each["value"], (cells, each)
                if view == "rising":
                    change = each["value"] - each["before"]
                    assert digits(cells[3]) == each["before"], (cells, each)
                    assert cells[4] == f"{'−' if change < 0 else '+'}{abs(change):,}", (cells, each)
        page = visit.open(VIEWS["top"][0])
        page.get_by_role("link", name=STAGE["hostile"]).click()
        expect(page.locator("#video-name")).to_have_text(STAGE["hostile"])


def names_and_channels_are_shown_and_lead_to_each_other(browser):
    video = STAGE["videos"][0]
    with Visit(browser) as visit:
        page = visit.open("#/top?span=all")
        expect(page.locator("#top-body tr", has_text=video)).to_contain_text("A cat on a wall")
        page.locator("#top-form").get_by_label("Of all").select_option("channels")
        page.locator("#top-form").get_by_role("button", name="Show").click()
        expect(page.locator("#top-body tr")).to_have_count(1)
        total = sum(stats(each)["total"] for each in STAGE["videos"][:2])
        cells = page.locator("#top-body td").all_inner_texts()
        assert cells[1].split() == ["cats", *STAGE["hostile"].split()] and digits(cells[2]) == total, (cells, total)
        page.get_by_role("link", name="cats").click()
        expect(page.locator("#video-title")).to_have_text("Channel")
        page.locator("#video-form").get_by_label("Span").select_option("all")
        page.locator("#video-form").get_by_role("button", name="Show").click()
        expect(page.locator("#totals .value")).to_have_text(f"{total:,}")
        expect(page.locator("#video-labels")).to_have_text(STAGE["hostile"])

        page = visit.open(video_fragment(video, span="all"))
        expect(page.locator("#video-labels")).to_have_text(f"A cat on a wall of {STAGE['hostile']}")
        page.locator("#video-labels a").click()
        expect(page.locator("#video-name")).to_have_text("cats")
        page = visit.open(video_fragment(video, span="all", live="yes"))
        expect(page.locator("#video-live")).to_have_text("live, by the stream")
        expect(page.locator("#video-labels")).to_contain_text("A cat on a wall")


def live_follows(browser):
    video = STAGE["videos"][0]
    with Visit(browser) as visit:
        page = visit.open(video_fragment(video, span="all", live="yes"))
        before = stats(video)["total"]
        expect(page.locator("#totals .value")).to_have_text(f"{before:,}")
        expect(page.locator("#video-live")).to_have_text("live, by the stream")
        post_one(video)
        expect(page.locator("#totals .value")).to_have_text(f"{before + 1:,}")
        expect(page.locator("#video-live")).to_have_text("live, by the stream")


def live_asks_again_where_there_is_no_stream(browser):
    video = STAGE["videos"][1]
    with Visit(browser, expected_errors=("404",)) as visit:
        visit.page.route("**/v1/stream?*", lambda route: route.fulfill(status=404, json={"detail": "no such path"}))
        page = visit.open(video_fragment(video, span="all", live="yes"))
        expect(page.locator("#video-live")).to_contain_text("asked every")
        before = stats(video)["total"]
        post_one(video)
        expect(page.locator("#totals .value")).to_have_text(f"{before + 1:,}")


def a_hostile_name_is_a_name(browser):
    with Visit(browser) as visit:
        page = visit.open(video_fragment(STAGE["hostile"], span="all"))
        expect(page.locator("#video-name")).to_have_text(STAGE["hostile"])
        expect(page.locator("#totals .value")).to_have_text(str(stats(STAGE["hostile"])["total"]))
        assert page.locator("main img").count() == 0 and "taken" not in page.title().split(" – ")[-1]


def a_fault_is_told(browser):
    with Visit(browser, expected_errors=("400",)) as visit:
        page = visit.open(video_fragment("v", types="No Such Type"))
        expect(page.get_by_role("alert")).to_contain_text("event_type")


def all_is_reached_by_the_keyboard(browser):
    for name, (fragment, is_there) in VIEWS.items():
        with Visit(browser) as visit:
            page = visit.open(fragment)
            is_there(page)
            page.evaluate("document.activeElement.blur()")
            wanted = page.evaluate("""() => [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
                .filter((each) => each.checkVisibility() && !each.disabled && !each.closest('dialog')).length""")
            reached = set()
            for _ in range(wanted + 3):
                page.keyboard.press("Tab")
                place = page.evaluate("""() => {
                    const at = document.activeElement;
                    const { outlineStyle, outlineWidth } = getComputedStyle(at);
                    return [[...document.querySelectorAll('*')].indexOf(at), at.outerHTML.slice(0, 80), outlineStyle, parseFloat(outlineWidth)];
                }""")
                if "<body" in place[1]:
                    break
                assert place[2] != "none" and 1 < place[3], f"no outline in {name}: {place}"
                reached.add(place[0])
            assert len(reached) == wanted, f"{len(reached)} of {wanted} are reached in {name}"
    with Visit(browser) as visit:
        page = visit.open()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content", "the skip link leads to the content"


def everybody_can_read_it(browser):
    axe = Axe()
    for name, (fragment, is_there) in VIEWS.items():
        for scheme, viewport in (("light", DESK), ("dark", PHONE)):
            with Visit(browser, viewport=viewport, scheme=scheme) as visit:
                page = visit.open(fragment)
                is_there(page)
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= viewport["width"], f"{name} is {wide} wide on {viewport['width']}"
                found = axe.run(page)
                assert found.violations_count == 0, f"{name} {scheme} {viewport}: {found.generate_report()}"
                ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
                assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 64) == (scheme == "dark"), ground


def a_token_is_asked_for_and_kept(browser):
    # Chromium tells of every 401 on its console.
    with Visit(browser, base=STAGE["guarded"], expected_errors=("401",)) as visit:
        page = visit.open()
        field = page.get_by_label("Bearer token")
        expect(field).to_be_focused()
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(field).to_be_focused()
        expect(field).to_have_value("")
        field.fill(STAGE["token"])
        page.keyboard.press("Enter")
        expect(page.locator("#partitions tr")).to_have_count(4)
        page.reload()
        expect(page.locator("#partitions tr")).to_have_count(4)
        expect(page.locator("#token-dialog")).to_be_hidden()


def some_traffic(page):
    for n in range(10):
        time_ms = int(time.time() * 1000)
        events = [
            {"event_id": f"p{time_ms}.{n}.{each}", "video_id": video, "event_type": "view", "timestamp": time_ms}
            for video in STAGE["videos"]
            for each in range(20 + n % 4 * 15)
        ]
        api("/v1/events", events)
        # Until the page has asked again.
        with page.expect_response("**/v1/status"):
            pass


def pictures_are_taken(browser):
    # The overview is last, since its traffic is no curve to look at.
    for name, (fragment, is_there) in reversed(VIEWS.items()):
        for suffix, viewport, scheme in (("", DESK, "light"), ("-dark", DESK, "dark"), ("-phone", PHONE, "light")):
            with Visit(browser, viewport=viewport, scheme=scheme) as visit:
                page = visit.open(fragment)
                is_there(page)
                if name == "overview":
                    some_traffic(page)
                # The chart has been drawn by the frame after the next.
                page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
                picture(page, name + suffix)


LOOKS = [
    overview_says_what_the_status_says,
    a_video_is_searched_for_and_shown,
    the_slider_shows_it_as_it_was,
    lists_say_what_the_api_says_and_lead_to_the_video,
    names_and_channels_are_shown_and_lead_to_each_other,
    a_hostile_name_is_a_name,
    a_fault_is_told,
    all_is_reached_by_the_keyboard,
    everybody_can_read_it,
    a_token_is_asked_for_and_kept,
    # Last, since they add events.
    live_follows,
    live_asks_again_where_there_is_no_stream,
    pictures_are_taken,
]

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
    expect.set_options(timeout=WAIT_MS)
    for look in [look for look in LOOKS if look.__name__ in (sys.argv[2:] or look.__name__)]:
        started = time.monotonic()
        look(browser)
        print(f"{look.__name__}: {time.monotonic() - started:.1f} s", flush=True)
    browser.close()
print("all was looked at")
