"""`tile`, `features` and `explain` by workers, in parts, and with everything in a store by URL."""

import pickle
from dataclasses import replace

import pytest
import yaml

from pathology.cli.explain_slide import SlideExplainer
from pathology.errors import StampMismatchError
from pathology.runs.loaded_runs import RunsChoice, date_made
from pathology.store.store import Store
from tests.made_cohort import (
    MODEL,
    MODEL_ARGS,
    NAMES,
    OTHERS,
    SAME_EVERYWHERE,
    VERBS,
    made_cohort,
    results_in,
)
from tests.made_run import write_run


@pytest.fixture(scope="module", autouse=True)
def same_everywhere():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SAME_EVERYWHERE.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("verb", VERBS)
def test_workers_write_the_same_bytes(pathology, made, tmp_path, verb):
    # Models take their time to load in a process that begins.
    workers = 2 if verb == "tile" else 1
    code, _, err = pathology(*made.words(verb, tmp_path, "--workers", workers))
    assert code == 0
    assert results_in(tmp_path) == made.results(verb)
    assert "tile/s]" not in err  # one bar for all
    assert "batch/s]" not in err
    # What they have made, this process need not.
    code, said, _ = pathology(*made.words(verb, tmp_path))
    assert (code, said.count("made before with the same settings")) == (0, len(NAMES))


def test_parts_come_to_the_same(pathology, made, tmp_path):
    for part in ("2/2", "1/2"):
        assert pathology(*made.words("tile", tmp_path, "--part", part))[0] == 0
    assert results_in(tmp_path) == made.results("tile")
    for verb in ("tile", "explain"):
        code, said, _ = pathology(*made.words(verb, tmp_path, "--part", "4/5"))
        assert (code, said) == (0, "no slide falls to part 4/5\n")


# --- what a worker is sent


def explainer(made, out, **changes):
    runs = RunsChoice([str(made.folder / "run")], device="cpu", depth="head")
    first = SlideExplainer(runs, made.folder / "tile", out, ["tumour"], 8.0, 1.0, 16)
    return replace(first, wanted=runs.load().digest(), here=runs.load(), **changes)


def test_what_a_worker_is_sent_loads_the_runs_itself(made, tmp_path):
    work = explainer(made, tmp_path)
    sent = pickle.dumps(work)
    assert len(sent) < 4000  # without any weights
    sent = pickle.loads(sent)
    assert (sent.here, "loaded" in vars(sent)) == (None, False)
    sent({"slide_id": "s1", "path": str(made.folder / "slides" / "s1.tif"), "mpp": None})
    wanted = {name: data for name, data in made.results("explain").items() if name[:2] == "s1"}
    assert results_in(tmp_path) == wanted
    assert sent.loaded.digest() == work.wanted
    assert sent.digest() == work.digest()


def test_another_run_than_the_driver_saw_is_refused(made, tmp_path):
    other = RunsChoice(
        [str(write_run(tmp_path / "run", mpp=2.0, model=MODEL, model_args=MODEL_ARGS, seed=1))],
        "cpu",
        depth="head",
    )
    sent = pickle.loads(pickle.dumps(explainer(made, tmp_path, runs=other)))
    with pytest.raises(StampMismatchError, match=r"run: weights, .* have changed"):
        sent.loaded  # noqa: B018


def test_when_results_were_made_can_be_said(monkeypatch):
    assert date_made() == "2023-11-14 22:13 UTC"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ValueError, match="whole number of seconds since 1970, got 'yesterday'"):
        date_made()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert date_made()[:2] == "20"


# --- by URL


@pytest.fixture(scope="module")
def bucket(made):
    """A store of Amazon's kind that holds the slides."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    from tests.made_stores import amazon

    with amazon() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.variables.items():
            patch.setenv(name, value)
        patch.setattr("pathology.store.remote.WAITS_S", (0.01,))
        slides = Store.at(f"{store.url}/slides")
        for name in NAMES:
            slides.put(made.folder / "slides" / f"{name}.tif", f"{name}.tif")
        slides.write("slides.csv", b"slide_id,path\n" + b"".join(
            f"{name},{name}.tif\n".encode() for name in NAMES
        ))  # fmt: skip
        yield store.url


def fetched(url, folder):
    """What a store holds, in a folder here."""
    store = Store.at(url)
    for name in store.names():
        store.get(name, folder / name)
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_all_of_it_by_url_is_the_same(pathology, refused, made, bucket, tmp_path, verb):
    out = f"{bucket}/{verb}"
    places = {"slides": f"{bucket}/slides/slides.csv", "tiles": f"{bucket}/tile"}
    if verb != "tile" and not Store.at(places["tiles"]).names():
        for name, data in made.results("tile").items():
            Store.at(places["tiles"]).write(name, data)
    words = made.words(verb, out, **places)
    workers = ["--workers", 1] if verb == "tile" else []
    code, said, err = pathology(*words, *workers)
    assert code == 0, err
    assert f"{out}/s1" in said
    there = fetched(out, tmp_path / "first")
    assert results_in(there) == made.results(verb)
    assert (there / "cohort.csv").read_text().count(",done,") == len(NAMES)
    if verb == "tile":
        assert yaml.safe_load((there / "tile.yaml").read_text())["out"] == out
    # Again: nothing to do. Otherwise: no.
    code, said, _ = pathology(*words)
    assert (code, said.count("made before with the same settings")) == (0, len(NAMES))
    more, named = OTHERS[verb]
    line = refused(*words, *more)
    assert named in line
    assert out in line
    assert "/tmp" not in line
    assert results_in(fetched(out, tmp_path / "last")) == made.results(verb)


def test_slides_of_a_folder_by_url(pathology, made, bucket, tmp_path):
    folder = f"{bucket}/slides"
    assert pathology(*made.words("tile", tmp_path, slides=folder))[0] == 0
    assert results_in(tmp_path) == made.results("tile")


def test_a_failure_is_listed_where_the_results_are(pathology, made, bucket, tmp_path):
    slides, out = Store.at(f"{bucket}/slides"), f"{bucket}/failing"
    slides.write("bad.tif", b"no slide")
    slides.write("bad.csv", b"slide_id,path\ns0,s0.tif\nbad,bad.tif\n")
    words = made.words("tile", out, "--keep-going", slides=f"{bucket}/slides/bad.csv")
    code, said, _ = pathology(*words)
    slides.remove("bad.tif")
    assert code == 3
    assert f"listed in {out}/failures.csv" in said
    there = fetched(out, tmp_path)
    row = (there / "failures.csv").read_text().splitlines()[1]
    assert row.startswith(f"bad,{bucket}/slides/bad.tif,SlideOpenError,{bucket}/slides/bad.tif: ")
    assert "bad" in (there / "quality.html").read_text()
    assert {name for name in results_in(there) if name.startswith("s0")} == {
        "s0.png", "s0.json", "s0.parquet",
    }  # fmt: skip


# --- what cannot be


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--workers", "-1"], "workers must be at least 0, got -1"),
        (["--retries", "-1"], "retries must be at least 0, got -1"),
        (["--address", "auto"], "--address auto is a cluster's; it needs --engine ray"),
        (["--part", "3"], "--part must be like 3/16"),
    ],
)
def test_options_that_do_not_go_together_are_refused(refused, made, tmp_path, verb, more, said):
    assert said in refused(*made.words(verb, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"slides": "s3://nowhere/slides.csv"}, "s3://nowhere"),
        ({"tiles": "memory://tiles"}, "memory://tiles"),
        ({"slides": "zip://slides.csv::s3://x"}, "a URL within a URL"),
        ({"slides": "nonsense://slides.csv"}, "nonsense://"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_urls_that_cannot_be_used_are_one_line(refused, made, tmp_path, places, said):
    assert said in refused(*made.words("features", tmp_path / "out", **places))


@pytest.mark.parametrize("verb", ["features", "explain"])
def test_workers_get_no_device_that_there_is_not(refused, made, tmp_path, verb):
    words = made.words(verb, tmp_path, "--workers", 2)
    place = words.index("--device") + 1
    words[place] = "cuda:97"
    line = refused(*words)
    assert "device 'cuda:97' cannot be used: this machine has" in line
    pytest.importorskip("ray")
    line = refused(*words, "--engine", "ray")
    assert "--device cuda:97: a cluster gives each worker a card of its own" in line
