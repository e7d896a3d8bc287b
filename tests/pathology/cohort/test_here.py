"""Work in this process tells what others tell."""

from pathology.cohort.engine import Needs
from pathology.cohort.events import Counted, Ended, Started
from pathology.cohort.here import Here
from pathology.cohort.worker import worker_name
from tests.pathology.cohort.test_processes import rows
from tests.pathology.cohort.trouble import Trouble


def test_events_come_in_the_order_of_the_rows(tmp_path):
    events = list(Here().run(rows("a", "count 3", "bug"), Trouble(tmp_path), Needs()))
    assert [(type(event), event.index) for event in events] == [
        (Started, 0),
        (Ended, 0),
        (Started, 1),
        (Counted, 1),
        (Ended, 1),
        (Started, 2),
        (Ended, 2),
    ]
    assert {event.worker for event in events} == {worker_name()}
    assert (events[3].tiles, events[3].waited_s) == (3, 0.75)
    assert isinstance(events[-1].result, KeyError)


def test_rows_are_worked_on_when_they_are_asked_for(tmp_path):
    work = Trouble(tmp_path)
    events = Here().run(rows("a", "b"), work, Needs())
    next(events)
    next(events)
    assert work.tried() == ["a"]
    events.close()
    assert work.tried() == ["a"]
