"""The report in a real browser: wide and narrow, light and dark."""

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from hub.compare.report import page as pages
from hub.compare.report.pictures import Pictures

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

OVERFLOWING = """() => {
  const found = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) found.push(`page ${root.scrollWidth} wide`);
  for (const one of document.body.querySelectorAll("*")) {
    if (one.closest("svg") && one.tagName !== "svg") continue;
    const box = one.getBoundingClientRect();
    if (!box.width) continue;
    const scroller = one.parentElement.closest(".scroll");
    const limits = scroller ? null : one.parentElement.getBoundingClientRect();
    const name = `${one.tagName} ${one.getAttribute("class")} ${one.textContent.slice(0, 40)}`;
    if (limits && (box.left < limits.left - 1 || box.right > limits.right + 1)) found.push(name);
    if (box.left < -1 || (!scroller && box.right > root.clientWidth + 1)) found.push(name);
    const clips = getComputedStyle(one).overflowX !== "auto";
    if (clips && one.tagName !== "svg" && one.scrollWidth > one.clientWidth + 1 && one.clientWidth
        && !scroller) found.push(`${name} holds ${one.scrollWidth} in ${one.clientWidth}`);
  }
  return [...new Set(found)];
}"""
"""What is wider than its container, besides what scrolls by itself."""
TEXT_OUTSIDE_PICTURES = """() => [...document.querySelectorAll("figure svg")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 2 || box.right > frame.right + 2 || box.top < frame.top - 2
      || box.bottom > frame.bottom + 2;
  }).map((text) => text.textContent);
})"""
"""Texts in pictures that are cut off."""
PICTURES = """() => {
  const decoration = (one) => one.getAttribute("aria-hidden") === "true";
  const bad = [...document.querySelectorAll("img, svg")].filter((one) => !decoration(one)
    && !(one.closest("figure")?.querySelector("figcaption")?.textContent.trim().length > 40));
  const empty = [...document.querySelectorAll("figure")].filter((one) => {
    const picture = one.querySelector("img, svg");
    const seen = picture && (picture.tagName === "IMG" ? picture.naturalWidth
      : picture.querySelectorAll("path").length > 3 && picture.getBoundingClientRect().height);
    return !seen;
  });
  return { bad: bad.length, empty: empty.length,
    figures: document.querySelectorAll("figure").length };
}"""
CONTRASTS = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const channels = (color) => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = channels(color).slice(0, 3).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (channels(color)[3] === 255) return color;
    }
    throw new Error("the page has no background");
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || one.closest("style")) continue;
    const style = getComputedStyle(one);
    const color = one.closest("svg") ? style.fill : style.color;
    const [bright, dim] = [luminance(color), luminance(behind(one))].sort((a, b) => b - a);
    found[`${color} on ${behind(one)}`] = (bright + 0.05) / (dim + 0.05);
  }
  return found;
}"""
"""The contrast of every color of text with what is behind it, as WCAG 2.2 defines it."""
VIEWS = [(width, scheme) for width in (1200, 400) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folders(everything, odd, tmp_path_factory) -> dict[str, Path]:
    made = {"everything": everything, "odd": odd}
    folders = {name: tmp_path_factory.mktemp(name) for name in made}
    for name, results in made.items():
        (folders[name] / "report.html").write_text(pages.html(results, Pictures.of(results)))
    return folders


def opened(browser: Browser, page: Path, width: int, scheme: str) -> tuple[Page, list[str]]:
    """Open a file with everything unfolded; return it and what was requested and complained of."""
    shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    heard: list[str] = []
    shown.on("request", lambda request: heard.append(request.url))
    shown.on("console", lambda message: heard.append(message.text))
    shown.on("pageerror", lambda error: heard.append(str(error)))
    shown.goto(page.as_uri())
    shown.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    return shown, heard


@pytest.mark.parametrize("study", ["everything", "odd"])
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_report_can_be_read(browser, folders, study, width, scheme):
    path = folders[study] / "report.html"
    page, heard = opened(browser, path, width, scheme)
    assert heard == [path.as_uri()]  # nothing else is loaded, nothing is complained of
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(TEXT_OUTSIDE_PICTURES) == []
    pictures = page.evaluate(PICTURES)
    assert (pictures["bad"], pictures["empty"]) == (0, 0)
    assert pictures["figures"] >= (10 if study == "everything" else 2)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) >= 4
    assert {colors: ratio for colors, ratio in contrasts.items() if ratio < 4.5} == {}
    assert page.locator("script").count() == 0
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", brightness)[:3])) > 128) == (scheme == "light")
    page.close()


@pytest.mark.parametrize("width", [1200, 400])
def test_tables_have_captions_and_headings(browser, folders, width):
    page, _ = opened(browser, folders["everything"] / "report.html", width, "light")
    assert page.locator("table").count() == page.locator("table > caption").count() > 2
    assert page.locator("th").count() == page.locator("th[scope]").count()
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    page.close()


def test_a_label_is_text_and_nothing_else(browser, folders):
    page, _ = opened(browser, folders["odd"] / "report.html", 1200, "light")
    assert page.locator("i, script").count() == 0
    assert "\u202e" not in page.content()
    assert page.locator("h3").first.inner_text() == "<i>&$\\frac$ [red]\"'{}\\x1b[31m\\u202e优"
    page.close()


BUGS = {
    "too wide": ("<h1>", '<div style="width: 1300px">x</div><h1>', OVERFLOWING),
    "wider than its parent": (
        "<h1>",
        '<div style="width: 200px"><span style="display: block; width: 300px">x</span></div><h1>',
        OVERFLOWING,
    ),
    "a word that does not break": (
        "overflow-wrap: anywhere;",
        "white-space: nowrap;",
        OVERFLOWING,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_too_wide_elements_are_found(browser, folders, tmp_path, bug):
    """What a report must not have is seen if it has it."""
    text = (folders["everything"] / "report.html").read_text()
    right, wrong, check = BUGS[bug]
    assert right in text
    (tmp_path / "report.html").write_text(text.replace(right, wrong, 1))
    page, _ = opened(browser, tmp_path / "report.html", 1200, "light")
    assert page.evaluate(check) != []
    page.close()


def test_bad_pictures_colors_and_requests_are_found(browser, folders, tmp_path):
    text = (folders["everything"] / "report.html").read_text()
    text = re.sub(r"<figcaption>.*?</figcaption>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"--muted:light-dark\([^)]*\)", "--muted:light-dark(#999999,#666666)", text)
    text = text.replace("<h1>", '<figure><img src="gone.png"></figure><h1>')
    (tmp_path / "report.html").write_text(text)
    page, heard = opened(browser, tmp_path / "report.html", 1200, "dark")
    assert len(heard) > 1
    pictures = page.evaluate(PICTURES)
    assert (pictures["bad"], pictures["empty"]) == (2, 1)
    assert any(ratio < 4.5 for ratio in page.evaluate(CONTRASTS).values())
    page.close()
