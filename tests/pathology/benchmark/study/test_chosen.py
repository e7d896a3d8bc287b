"""Which tiles are explained: of all classes, the same for all, pairs together."""

from dataclasses import replace

import numpy as np
import pandas as pd

from pathology.benchmark.study.chosen import choose
from tests.pathology.benchmark.study.made_subject import examples


def test_classes_take_turns_and_the_choice_is_the_seeds():
    made = examples(20)
    few = choose(made, 6)
    assert few.labels.tolist() == [0, 1] * 3
    assert few.names == choose(made, 6).names
    assert few.names != choose(made, 6, seed=1).names
    # More of them begin with the same.
    assert choose(made, 10).names[:6] == few.names
    for count in (0, 20, 100):
        assert sorted(choose(made, count).names) == sorted(made.names)


def test_tiles_that_belong_together_stay_together():
    made = examples(12)
    bases = [f"b{(i // 4) * 2 + i % 2}" for i in range(12)]
    paired = replace(made, columns=pd.DataFrame({"base": bases}))
    few = choose(paired, 4)
    assert len(few) == 4
    assert sorted(np.unique(few.columns["base"], return_counts=True)[1].tolist()) == [2, 2]


def test_every_patient_comes_before_one_comes_twice():
    made = examples(40)
    names = [f"p{(i // 2) % 5}" for i in range(40)]  # four tiles of a class for each of five
    few = choose(replace(made, patients=tuple(names)), 20)
    for label in (0, 1):
        mine = [p for p, its in zip(few.patients, few.labels, strict=True) if its == label]
        assert sorted(mine[:5]) == sorted(mine[5:]) == [f"p{i}" for i in range(5)]
