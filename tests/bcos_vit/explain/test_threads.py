"""Threads explain and train at the same time without a trace of each other."""

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import torch

from bcos_vit.explain import explain
from bcos_vit.layers import explanation_mode


def test_eight_threads_explain_different_classes_at_once(make_vit):
    model = make_vit(num_classes=8)
    images = torch.rand(4, 6, 4, 4, dtype=torch.float64)
    expected = [explain(model, images, target) for target in range(8)]
    start = Barrier(8)

    def work(target):
        start.wait(30)
        return [explain(model, images, target) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    for target, explanations in enumerate(found):
        for explanation in explanations:
            assert torch.equal(explanation.weights, expected[target].weights)
            assert torch.equal(explanation.bias, expected[target].bias)


def train(model, images, steps):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        model(images).square().sum().backward()
        optimiser.step()
    return model


def test_a_thread_that_trains_is_not_touched_by_one_that_explains(make_resnet):
    explained = make_resnet()
    images = torch.rand(2, 6, 8, 8, dtype=torch.float64)
    trained = copy.deepcopy(explained).train()
    expected = train(copy.deepcopy(trained), images, 5).state_dict()
    done = Event()

    def explain_until_done():
        count = 0
        while not done.is_set() or not count:
            explain(explained, images)
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(explain_until_done)
        found = train(trained, images, 5).state_dict()
        done.set()
        assert future.result(30) > 0
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_thread_that_trains_while_this_one_is_in_explanation_mode_learns(make_vit):
    model = make_vit().train()
    images = torch.rand(2, 6, 4, 4, dtype=torch.float64)
    expected = train(copy.deepcopy(model), images, 2).state_dict()
    with explanation_mode(), ThreadPoolExecutor(1) as pool:
        found = pool.submit(train, model, images, 2).result(30).state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
