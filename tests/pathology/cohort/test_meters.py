"""Numbers for Prometheus: the format is what its own parser reads."""

import pytest

from pathology.cohort.events import Counted, Ended, Started
from pathology.cohort.meters import exposition, metrics_name
from pathology.cohort.tally import Tally


def told(**ended):
    now = [0.0]
    tally = Tally([{"slide_id": str(i), "path": ""} for i in range(6)], ["0"], lambda: now[0])
    tally.take(Started(0, "a"))
    tally.take(Ended(0, "a", "was there", 0.0))
    for index in (1, 2, 3):
        tally.take(Started(index, "a"))
        now[0] += 10
        tally.take(Counted(index, "a", 1000, 2.5))
        if index < 3:
            tally.take(Ended(index, "a", "done" if index == 1 else ValueError(), 10.0))
    return exposition(tally, "tile", 'r"\\\n1', 1.5e9, **ended)


@pytest.fixture
def parsed():
    parser = pytest.importorskip("prometheus_client.parser")

    def parse(text):
        families = list(parser.text_string_to_metric_families(text))
        return families, {
            (s.name, s.labels.get("state")): (s.value, s.labels)
            for f in families
            for s in f.samples
        }

    return parse


def test_prometheus_reads_what_is_written(parsed):
    families, samples = parsed(told())
    values = {key: value for key, (value, _) in samples.items()}
    assert values[("bcos_pathology_slides", "done")] == 2
    assert values[("bcos_pathology_slides", "failed")] == 1
    assert values[("bcos_pathology_slides", "working")] == 1
    assert values[("bcos_pathology_slides", "waiting")] == 2
    assert values[("bcos_pathology_slides_done_before", None)] == 1
    assert values[("bcos_pathology_tiles_total", None)] == 3000
    assert values[("bcos_pathology_tiles_per_second", None)] == pytest.approx(100)
    assert values[("bcos_pathology_waiting_seconds_total", None)] == 7.5
    assert values[("bcos_pathology_waiting_share", None)] == pytest.approx(0.25)
    assert values[("bcos_pathology_workers", None)] == 1
    assert values[("bcos_pathology_tries_total", None)] == 4
    assert values[("bcos_pathology_run_seconds", None)] == 30
    assert values[("bcos_pathology_run_ended_timestamp_seconds", None)] == 0
    for _, labels in samples.values():
        assert (labels["verb"], labels["run"]) == ("tile", 'r"\\\n1')
    assert all(family.documentation for family in families)
    kinds = {family.name: family.type for family in families}
    assert kinds["bcos_pathology_tiles"] == "counter"  # the parser takes _total off
    assert kinds["bcos_pathology_slides"] == "gauge"
    assert "unknown" not in kinds.values()


def test_a_run_that_has_ended_works_no_more(parsed):
    _, samples = parsed(told(ended_s=1.6e9))
    values = {name: value for (name, _), (value, _) in samples.items()}
    assert values["bcos_pathology_workers"] == values["bcos_pathology_tiles_per_second"] == 0
    assert values["bcos_pathology_tiles_total"] == 3000
    assert values["bcos_pathology_run_ended_timestamp_seconds"] == 1.6e9


def test_parts_have_files_of_their_own():
    assert metrics_name("tile") == ".cohort/tile/metrics.prom"
    assert metrics_name("tile", "-3-of-16") == ".cohort/tile/metrics-3-of-16.prom"
