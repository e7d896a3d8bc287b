"""The simulation of a cohort on a cluster says what can be computed by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from scripts.cluster_simulation import Cluster, Plan, Simulation, Verb, bounds, even_shares
from scripts.simulate_cohort import draw_failures, draw_tiles

ROOMY = Cluster(
    gpus=1, gpus_per_node=1, cores_per_gpu=1e6, storage_gb_s=1e6, node_gb_s=1e6, stream_gb_s=1e6,
    latency_s=0, put_s=0, start_s=0,
)  # fmt: skip
ONE = Plan(readers=1000)


def ran(tiles, verb, cluster=ROOMY, plan=ONE, failures=()):
    outcome = Simulation(tiles, verb, cluster, plan, failures).run()
    assert sum(outcome.shares.values()) == pytest.approx(1)
    return outcome


def test_one_gpu_does_one_slide_after_another():
    tiles = [100, 250, 50]
    verb = Verb(10, open_s=2, finish_s=3, file_bytes=1e6, written_bytes=1e5)
    cluster = replace(ROOMY, start_s=7, put_s=0.5, stream_gb_s=0.01, storage_gb_s=1)
    outcome = ran(tiles, verb, cluster, replace(ONE, fetch=True))
    moved = 400 * (1e6 + 1e5) / 1e7
    assert outcome.wall_s == pytest.approx(7 + 3 * 5.5 + 40 + moved)
    wanted = {"computing": 40, "storage": moved + 1.5, "host": 15, "starting": 7}
    found = {name: share * outcome.wall_s for name, share in outcome.shares.items()}
    assert {name: value for name, value in found.items() if value > 1e-6} == pytest.approx(wanted)


@pytest.mark.parametrize("fetch", [True, False])
def test_storage_is_the_limit(fetch):
    cluster = replace(ROOMY, gpus=16, gpus_per_node=4, storage_gb_s=2)
    verb = Verb(1e6, read_bytes=1e6, file_bytes=3e6, written_bytes=1e5)
    outcome = ran([1000] * 320, verb, cluster, replace(ONE, fetch=fetch))
    assert outcome.wall_s == pytest.approx(320_000 * (3.1e6 if fetch else 1.1e6) / 2e9, rel=0.01)
    assert outcome.shares["storage"] > 0.98


def test_the_network_of_each_machine_is_the_limit():
    cluster = replace(ROOMY, gpus=8, gpus_per_node=2, storage_gb_s=100, node_gb_s=0.5)
    outcome = ran([1000] * 80, Verb(1e6, read_bytes=1e6), cluster)
    assert outcome.wall_s == pytest.approx(80_000 * 1e6 / (4 * 0.5e9))


def test_computing_is_the_limit():
    cluster = replace(ROOMY, gpus=8, cores_per_gpu=10)
    outcome = ran([500] * 40, Verb(100, decode_s=0.05), cluster)
    assert outcome.wall_s == pytest.approx(40 * 5 / 8)
    assert outcome.shares["computing"] == pytest.approx(1)


def test_decoding_is_the_limit():
    cluster = replace(ROOMY, gpus=8, cores_per_gpu=2)
    outcome = ran([500] * 40, Verb(100, decode_s=0.1), cluster, replace(ONE, parallel=2))
    assert outcome.wall_s == pytest.approx(20_000 * 0.1 / 16)
    assert outcome.shares["computing"] == pytest.approx(0.2)
    assert outcome.shares["cores"] == pytest.approx(0.8)


def test_too_few_readers_wait_for_storage_to_answer():
    cluster = replace(ROOMY, latency_s=0.03, stream_gb_s=0.001)
    verb = Verb(1000, decode_s=0.01, read_bytes=1e4)
    outcome = ran([500], verb, cluster, replace(ONE, readers=4))
    assert outcome.wall_s == pytest.approx(500 * (0.01 + 0.03 + 0.01) / 4)
    assert outcome.shares["few_readers"] == pytest.approx(1 - 0.5 / outcome.wall_s)


def test_maps_keep_a_gpu_waiting_unless_it_has_two_slides():
    verb = Verb(100, host_s=0.02)
    assert ran([100] * 4, verb).wall_s == pytest.approx(8)
    both = ran([100] * 4, verb, plan=replace(ONE, parallel=2))
    assert both.wall_s == pytest.approx(4)


def test_two_queues():
    """A link and a GPU, each shared by the two slides that are under way."""
    verb = Verb(1, file_bytes=1e9)
    cluster = replace(ROOMY, storage_gb_s=1, stream_gb_s=1)
    outcome = ran([2, 6, 1], verb, cluster, replace(ONE, fetch=True, parallel=2))
    # By half the link each, 2 are there at 4, and computed until 6, while 6 lack 4 and, alone,
    # then 2; from there on 1 is fetched, too, until 8, and 6 until 9, when 1 is computed.
    assert outcome.wall_s == pytest.approx(9 + 6)
    assert outcome.shares["computing"] == pytest.approx(9 / 15)
    assert outcome.shares["storage"] == pytest.approx(6 / 15)


@pytest.mark.parametrize(("order", "wall_s"), [("listed", 5), ("longest", 4), ("shortest", 6)])
def test_order(order, wall_s):
    outcome = ran([1, 1, 4, 1, 1], Verb(1), replace(ROOMY, gpus=2), replace(ONE, order=order))
    assert outcome.wall_s == pytest.approx(wall_s)


def test_bands_shorten_the_tail_and_fetch_a_file_for_each():
    verb, cluster = Verb(1, file_bytes=1e9), replace(ROOMY, gpus=4)
    in_place = replace(ONE, band_tiles=25)
    assert ran([100], verb, cluster).wall_s == pytest.approx(100)
    assert ran([100], verb, cluster, in_place).wall_s == pytest.approx(25)
    slow = replace(cluster, storage_gb_s=1)
    assert ran([100], verb, slow, replace(ONE, fetch=True)).wall_s == pytest.approx(200)
    assert ran([100], verb, slow, replace(in_place, fetch=True)).wall_s == pytest.approx(425)


def test_a_machine_that_fails_takes_its_slides_with_it():
    cluster = replace(ROOMY, gpus=2, start_s=1, repair_s=5)
    outcome = ran([10, 10], Verb(1), cluster, failures=[(4, 0)])
    # Three of the first slide are lost. The machine is back at 9, works from 10, until 20; the
    # other one is through with its own at 11.
    assert outcome.wall_s == pytest.approx(20)
    assert (outcome.lost, outcome.begun) == (1, 3)
    assert outcome.again == pytest.approx(3 / 23)


def test_another_machine_takes_a_lost_slide_over():
    cluster = replace(ROOMY, gpus=2, repair_s=100)
    assert ran([10, 5], Verb(1), cluster, failures=[(4, 0)]).wall_s == pytest.approx(15)


def test_a_slow_machine_is_overtaken():
    cluster = replace(ROOMY, gpus=2, slow_nodes=1, slowness=0.1)
    tiles = [100] * 5
    slow = ran(tiles, Verb(1), cluster)
    assert slow.wall_s == pytest.approx(1000)
    # The last of the other four is done at 400; the median is 100, so 300 s are too long.
    again = ran(tiles, Verb(1), cluster, replace(ONE, begin_again=True))
    assert again.wall_s == pytest.approx(500)
    assert again.begun == 6
    assert again.again == pytest.approx(50 / 550)


def test_shares_are_max_min_fair():
    assert even_shares(np.array([1.0, 5, 3, 9]), 100).tolist() == [1, 5, 3, 9]
    assert even_shares(np.array([1.0, 5, 3, 9]), 12).tolist() == [1, 4, 3, 4]
    assert even_shares(np.array([0.0, 2, 2]), 1).tolist() == [0, 0.5, 0.5]


def test_no_run_is_quicker_than_the_slowest_of_its_parts_and_most_are_little_slower():
    tiles = draw_tiles(150, 3000, 0.8)
    verb = Verb(800, 1.2e-3, 46e3, 92e3, 4096, 2e-4, 0.3, 2)
    cluster = replace(Cluster(), gpus=8, gpus_per_node=4, mtbf_h=0.02, repair_s=5)
    found = []
    for storage, fetch, parallel in itertools.product((0.5, 2, 50), (False, True), (1, 2)):
        there = replace(cluster, storage_gb_s=storage)
        plan = Plan(parallel, 8, fetch, "longest")
        calm = ran(tiles, verb, there, plan)
        found.append(calm.wall_s / max(bounds(tiles, verb, there, plan).values()))
        assert calm.again == pytest.approx(0, abs=1e-9)
    assert min(found) >= 1
    assert max(found) < 1.5
    failing = ran(tiles, verb, cluster, Plan(), draw_failures(cluster))
    assert failing.lost > 0
    assert failing.again > 0
    assert failing == ran(tiles, verb, cluster, Plan(), draw_failures(cluster))
