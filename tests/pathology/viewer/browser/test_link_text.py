"""Views as text in an address, and back."""

import random
from typing import Any

import pytest

SLIDES = [("a1b2c3d4e5f6", "case_1"), ("0123456789ab", "case & = #2")]
EVIDENCE = ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"]
LIBRARY = {
    "runs": [{"id": "r", "name": "cnn"}, {"id": "v", "name": "vit"}],
    "slides": [
        *({"id": id, "name": name, "problem": None, "labels": {}} for id, name in SLIDES),
        {"id": "eeeeeeeeeeee", "name": "broken", "problem": "it is no slide", "labels": {}},
    ],
    "evidence": [
        {"id": id, "run": run, "slide": slide, "target": target, "score": 1.0, "hidden": hidden}
        for id, run, slide, target, hidden in [
            (EVIDENCE[0], "r", SLIDES[0][0], "tumour", False),
            (EVIDENCE[1], "v", SLIDES[0][0], "tumour", False),
            (EVIDENCE[2], "r", SLIDES[1][0], "tumour", False),
            (EVIDENCE[3], "v", SLIDES[1][0], "tumour", True),
        ]
    ],
    "limits": {"heatmap": 10.0},
}


@pytest.fixture
def ask(module_page):
    """Calls a function of link_text.js."""

    def call(name: str, *arguments: Any) -> Any:
        return module_page.evaluate(
            """async ([name, given]) => {
              const link = await import("/static/frame/link_text.js");
              return link[name](...given);
            }""",
            [name, list(arguments)],
        )

    return call


def any_state(chance: random.Random) -> dict[str, Any]:
    """A state of the page as someone may have left it; numbers of as many digits as links have."""
    slide = SLIDES[0][0]
    shown = [None, EVIDENCE[0], EVIDENCE[1], f"{EVIDENCE[0]}~{EVIDENCE[1]}"]
    panes = []
    for _ in range(chance.randint(1, 4)):
        evidence = chance.choice(shown)
        mode = "slide" if evidence is None else chance.choice(["slide", "heat", "overlay"])
        pane = {"slide": slide, "evidence": evidence, "mode": mode}
        panes.append(
            pane
            | {
                "map": chance.choice(["heatmap", "density", "layers/odd: name+ &=#%"]),
                "opacity": chance.randint(0, 100) / 100,
            }
        )
    if chance.random() < 0.5:
        other = {"slide": SLIDES[1][0], "evidence": EVIDENCE[2], "mode": "overlay"}
        panes[-1] = other | {"map": "heatmap", "opacity": 0.3}
    regions = [
        {
            "id": f"region {index}:&",
            "kind": chance.choice(["lasso", "annotation"]),
            "name": chance.choice(["", "Region 1", "<i>a:b;c</i> & ü"]),
            "slide": slide,
            "polygons": [
                [
                    [[round(chance.uniform(-5, 1e5), 1) for _ in range(2)] for _ in range(points)]
                    for points in chance.choices([3, 4, 9], k=chance.randint(1, 2))
                ]
                for _ in range(chance.randint(1, 2))
            ],
        }
        for index in range(chance.randint(0, 2))
    ]
    return {
        "page": "slide",
        "slide": slide,
        "panes": panes,
        "active": chance.randrange(len(panes)),
        "layout": chance.choice(["grid", "curtain"]) if len(panes) > 1 else "grid",
        "curtain": round(chance.random(), 3),
        "view": {
            "x": round(chance.uniform(-1e3, 1e5), 2),
            "y": round(chance.uniform(-1e3, 1e5), 2),
            "scale": float(f"{10 ** chance.uniform(-2, 3):.6g}"),
            "rotation": round(chance.uniform(0, 360), 1),
        },
        "colour": {
            "limits": {"heatmap": chance.choice([10.0, 2.5e-7, 310]), "layers/a:b": 3.0},
            "threshold": chance.choice([0, 0.1, 1e-9]),
            "sign": chance.choice(["both", "for", "against"]),
            "palette": chance.choice(["blue-brown", "purple-green"]),
            "smooth": chance.random() < 0.5,
            "grid": chance.random() < 0.5,
        },
        "regions": regions,
        "selected": chance.choice([region["id"] for region in regions] + [None]),
        "tile": chance.choice([None, {"evidence": EVIDENCE[0], "index": chance.randrange(10**6)}]),
        "panel": chance.choice(["ledger", "regions", "gallery", "model", None]),
        "library": LIBRARY,
    }


def test_what_is_written_is_read_back(ask):
    chance = random.Random(8)
    for _ in range(60):
        state = any_state(chance)
        text = ask("written", state)
        assert all(char.isalnum() or char in "-._~:/?@!$&'()*+,;=%" for char in text), text
        got = ask("parsed", text, LIBRARY)
        assert got["problems"] == [], text
        wanted = {key: value for key, value in state.items() if key != "library"}
        if state["layout"] == "grid":
            wanted.pop("curtain")
            got["patch"].pop("curtain", None)
        assert got["patch"] == wanted, text
    choice = {"find": "a b&c", "label": "label=tumour", "show": "open", "descending": True}
    for sort in ("name", "label:site, batch", "score:r/tumour - normal"):
        list_ = choice | {"sort": sort}
        text = ask("written", {"page": "list", "list": list_, "library": LIBRARY})
        assert ask("parsed", text, LIBRARY) == {
            "patch": {"page": "list", "list": list_},
            "problems": [],
        }
    whole = {**any_state(chance), "view": None, "regions": [], "selected": None, "tile": None}
    whole |= {"panel": "ledger", "layout": "grid", "active": 0, "panes": whole["panes"][:1]}
    whole["colour"] = {
        "limits": {"heatmap": 10.0}, "threshold": 0, "sign": "both", "palette": "blue-brown",
        "smooth": False, "grid": False,
    }  # fmt: skip
    text = ask("written", whole)
    assert len(text.split("&")) == 2, f"what is as ever is left out: {text}"


SLIDE = f"slide={SLIDES[0][0]}"
PANE = f"pane={EVIDENCE[0]}:overlay:60:heatmap"


NONSENSE = [
    "pane=ffffffffffff:overlay:60:heatmap",  # no such explanation
    f"pane={EVIDENCE[2]}:overlay:60:heatmap",  # of another slide
    f"pane={EVIDENCE[3]}:overlay:60:heatmap:{SLIDES[1][0]}",  # hidden
    f"pane={EVIDENCE[0]}~{EVIDENCE[2]}:overlay:60:heatmap",  # of two slides
    f"pane={EVIDENCE[0]}~{EVIDENCE[1]}~{EVIDENCE[0]}:overlay:60:heatmap",
    f"pane={EVIDENCE[0]}:xray:60:heatmap",
    f"pane={EVIDENCE[0]}:overlay:600:heatmap",
    "pane=",
    "pane=:slide:60:heatmap:eeeeeeeeeeee",  # a slide that cannot be opened
    "view=1,2",
    "view=1,2,0,0",
    "view=1,2,-3,0",
    "view=NaN,2,3,0",
    "view=1e300,2,3,0",
    "active=0",
    "curtain=1.5",
    "limit:heatmap=0",
    "limit:heatmap=-1",
    "limit:heatmap=",
    "limit:heatmap=Infinity",
    "hide-below=-1",
    "sign=maybe",
    "palette=rainbow",
    "panel=secret",
    f"tile={EVIDENCE[0]}:-1",
    f"tile={EVIDENCE[3]}:1",
    "tile=7",
    f"region=r:lasso:n:{SLIDES[0][0]}:1,2_3,4",
    f"region=r:lasso:n:{SLIDES[0][0]}:1,2_3,4_5",
    "region=%",
    "region=r:lasso:n:ffffffffffff:1,2_3,4_5,6",
    "__proto__=1",
    "surprise=%zz",
]


def test_what_makes_no_sense_is_left_out_and_told(ask):
    good = ask("parsed", f"{SLIDE}&{PANE}", LIBRARY)
    for part in NONSENSE:
        got = ask("parsed", f"{SLIDE}&{PANE}&{part}", LIBRARY)
        assert got["patch"] == good["patch"], part
        [problem] = got["problems"]
        assert problem[:20] in part


def test_a_slide_that_is_not_here_leads_to_the_list(ask):
    for slide in ("ffffffffffff", "eeeeeeeeeeee", "", "../../etc"):
        got = ask("parsed", f"slide={slide}&{PANE}&view=1,2,3,0", LIBRARY)
        assert got["patch"]["page"] == "list"
        assert got["problems"] == [f"slide={slide}"]
    long = ask("parsed", f"slide={'x' * 5000}", LIBRARY)
    assert len(long["problems"][0]) < 60
