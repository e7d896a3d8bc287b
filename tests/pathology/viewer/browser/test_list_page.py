"""The list of slides: what it says of them, its order, its keys, and thousands of rows."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.pathology.viewer.conftest import ODD

READY = (
    "() => document.body.viewer?.library != null && document.querySelector('.list-page tbody tr')"
)
ROWS = "[...document.querySelectorAll('.list-page .open')].map((open) => open.textContent)"


@pytest.fixture
def listed(page, served):
    page.goto(served.url)
    page.wait_for_function(READY)
    return page


def test_says_of_slides_what_the_library_says(listed, served, library):
    assert sorted(listed.evaluate(ROWS)) == sorted(slide.name for slide in library.slides)
    assert listed.locator(".list-page img[onerror]").count() == 0, "a name became markup"
    row = listed.locator("tbody tr", has_text="case_1")
    assert "tumour" in row.inner_text()
    for entry in library.evidence:
        if entry.slide.name == "case_1":
            score = entry.explanation.ledger.score
            shown = f"{abs(score):.2f}"
            label = f"{entry.run.name}, {entry.target}: {'-' if score < 0 else '+'}{shown}"
            names = row.locator("td.score button").evaluate_all(
                "(all) => all.map((one) => one.getAttribute('aria-label').replace('\u2212', '-'))"
            )
            assert any(label in name for name in names), (label, names)
    undivided = row.locator("small", has_text="undivided")
    assert undivided.count() == 2, "two of its explanations left tiles undivided"
    # Pictures come, and are of the slide's shape.
    listed.wait_for_function(
        "() => [...document.querySelectorAll('.thumbnail img')].every((one) => one.naturalWidth)"
    )


def test_is_worked_by_keys(listed, library):
    names = listed.evaluate(ROWS)
    listed.keyboard.press("ArrowDown")
    assert listed.evaluate("document.activeElement.textContent") == names[0]
    listed.keyboard.press("ArrowDown")
    assert listed.evaluate("document.activeElement.textContent") == names[1]
    listed.keyboard.press("Home")
    listed.keyboard.press("/")
    listed.keyboard.type("CASE tum")
    assert listed.evaluate(ROWS) == ["case_1"], "words of name and labels, whatever the case"
    listed.keyboard.press("Escape")
    assert len(listed.evaluate(ROWS)) == len(names)
    listed.keyboard.type("case")
    listed.keyboard.press("Enter")
    assert listed.evaluate("document.activeElement.textContent") == "case_1"
    listed.keyboard.press("Enter")
    listed.wait_for_function("() => document.body.viewer.store.get().page === 'slide'")
    state = listed.evaluate("document.body.viewer.store.get()")
    assert state["slide"] == next(slide.id for slide in library.slides if slide.name == "case_1")
    focused = "document.activeElement.getAttribute('role')"
    listed.wait_for_function(f"() => {focused} === 'application'")
    listed.keyboard.press("u")
    listed.wait_for_function("() => document.activeElement.textContent === 'case_1'")


def test_a_score_opens_its_explanation(listed, library):
    entry = next(entry for entry in library.evidence if entry.target == "tumour - normal")
    listed.locator(f'button[aria-label*="{entry.run.name}, {entry.target}"]').click()
    panes = listed.evaluate("document.body.viewer.store.get().panes")
    assert [(pane["evidence"], pane["mode"]) for pane in panes] == [
        (None, "slide"),
        (entry.id, "overlay"),
    ]


MANY = 2000


def made_up(seed: int = 0) -> dict[str, Any]:
    """A library as the server tells it: some slides broken, some not explained, one gap open."""
    chance = random.Random(seed)
    slides, evidence = [], []
    for index in range(MANY):
        slide = {
            "id": f"{index:012x}",
            "name": f"case_{index}" if index else ODD,
            "labels": {"label": chance.choice(["tumour", "normal"]), "batch": str(index % 3)},
            "problem": "it is no slide" if index % 100 == 50 else None,
            "committed": False,
            "evidence": [],
        }
        slides.append(slide)
        if index % 10 != 3:
            entry = {"id": f"e{index:011x}", "run": "r", "slide": slide["id"], "target": "tumour"}
            numbers = {"score": chance.gauss(0, 3), "gap": 0.5, "is_closed": index != 77}
            evidence.append(entry | numbers | {"undivided": None, "hidden": False, "problem": None})
    runs = [{"id": "r", "name": "cnn"}]
    return {
        "version": "0", "blind": False, "runs": runs, "slides": slides, "evidence": evidence,
        "limits": {"heatmap": 10.0},
    }  # fmt: skip


@pytest.fixture
def many(page, served):
    """The page with thousands of slides, and which thumbnails it asked for."""
    told = made_up()
    picture = Path(__file__).parents[4] / "pathology/viewer/static/icon.svg"
    asked: list[str] = []

    def thumbnail(route) -> None:
        asked.append(route.request.url.split("/")[-2])
        route.fulfill(body=picture.read_bytes(), content_type="image/svg+xml")

    page.route(
        "**/api/library",
        lambda route: route.fulfill(body=json.dumps(told), content_type="application/json"),
    )
    page.route("**/thumbnail.jpg", thumbnail)
    page.goto(served.url)
    page.wait_for_function(READY)
    return page, told, asked


def choose(page, **patch: Any) -> None:
    page.evaluate(
        "(patch) => { const { store } = document.body.viewer;"
        " store.set({ list: { ...store.get().list, ...patch } }); }",
        patch,
    )


def test_thousands_of_slides_are_a_screen_of_elements(many):
    page, _, asked = many
    shown = page.evaluate("document.querySelectorAll('.list-page tbody tr').length")
    assert shown < 40
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumbnail img')].every((one) => one.src)"
    )
    assert 0 < len(asked) <= shown
    assert page.locator("table").get_attribute("aria-rowcount") == str(MANY + 1)
    # To the end: there it is asked for what is seen there, and for nothing in between.
    page.keyboard.press("End")
    page.wait_for_function("() => document.activeElement.textContent === 'case_1999'")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumbnail img')].every((one) => one.src)"
    )
    assert len(asked) < 80
    assert {int(one, 16) for one in asked} <= {*range(40), *range(MANY - 40, MANY)}
    box = page.evaluate(
        """() => {
          const { x, y } = document.activeElement.getBoundingClientRect();
          return document.elementFromPoint(x + 2, y + 2).textContent;
        }"""
    )
    assert box == "case_1999", "the row with the focus is in view"


def test_order_and_filters_are_those_of_sorted(many):
    page, told, _ = many
    score = {entry["slide"]: entry["score"] for entry in told["evidence"]}
    order = "document.body.viewer.order"
    with_score = sorted(score, key=score.__getitem__, reverse=True)
    page.locator("th.score button").click()
    got = page.evaluate(order)
    assert got[: len(with_score)] == with_score
    assert len(got) == MANY, "those without a score come last"
    page.locator("th.score button").click()
    got = page.evaluate(order)
    assert got[: len(with_score)] == with_score[::-1], "and last in the other order too"
    page.locator("th.name button").click()
    names = {slide["id"]: slide["name"] for slide in told["slides"]}
    numbered = [names[one] for one in page.evaluate(order) if names[one] != ODD]
    assert numbered == sorted(numbered, key=lambda name: int(name.split("_")[1]))

    faulty = [slide["id"] for slide in told["slides"] if slide["problem"]]
    page.locator(".list-tools select").nth(1).select_option("problem")
    assert page.evaluate(order) == faulty
    assert page.locator("[role=status].told").inner_text() == "20 of 2,000 slides"
    page.locator(".list-page .open").first.press("Enter")
    assert "it is no slide" in page.locator(".notice").inner_text()
    page.locator(".list-tools select").nth(1).select_option("open")
    assert page.evaluate(order) == [f"{77:012x}"]
    assert page.locator("small.problem").inner_text() == "gap 0.50"
    page.locator(".list-tools select").nth(1).select_option("unexplained")
    assert len(page.evaluate(order)) == 200
    page.locator(".list-tools select").nth(1).select_option("all")
    page.locator(".list-tools select").nth(0).select_option("batch=2")
    assert page.evaluate(order) == [s["id"] for s in told["slides"] if s["labels"]["batch"] == "2"]
    choose(page, label="", find="no such slide")
    assert "No slide is like that" in page.locator("tbody").inner_text()
