"""What the flow shows of a training while it goes on."""

import threading
import time
from types import SimpleNamespace

from flows import embedded, pretrain, supervise
from model.settings import Processes


def line(step: int, **more) -> dict:
    return {"step": step, "loss": 5.0 - step / 100, "tokens_per_second": 12345.6, "seconds": 2.0} | more


def test_a_live_artifact_says_how_far_the_run_is(monkeypatch):
    shown, clock = [], [100.0]
    monkeypatch.setattr(pretrain, "create_progress_artifact", lambda done, description: shown.append(
        ("new", done, description)) or "id")
    monkeypatch.setattr(pretrain, "update_progress_artifact", lambda artifact, done, description: shown.append(
        (artifact, done, description)))
    monkeypatch.setattr(pretrain, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    show = pretrain.progress("pretrain x", 100)
    assert not shown                                    # a machine that sees no steps shows nothing
    for step in range(1, 101):
        show(line(step, **({"mfu": 0.4123, "bits_per_byte": 1.23456} if step == 100 else {})))
        clock[0] += pretrain.EVERY / 20
        until(lambda: shown)
    assert shown[0] == ("new", 1.0, "pretrain x: step 1 of 100, loss 4.9900, 12,346 tokens/s, 0:03:18 left")
    assert shown[-1] == ("id", 100.0, "pretrain x: step 100 of 100, loss 4.0000, 12,346 tokens/s, MFU 41.2 %, "
                                      "1.2346 bits a byte, 0:00:00 left")
    assert 4 <= len(shown) <= 7                         # one in ten seconds or so: each is an event


def test_a_prefect_that_is_away_or_hangs_holds_nothing_up(monkeypatch, caplog):
    clock, calls, shown, going = [100.0], [], [], threading.Event()

    def create(done, description):
        calls.append(done)
        if len(calls) < 3:
            raise OSError("no server")
        if len(calls) == 3:
            going.wait(60)                              # a minute, as a server that takes no connection
        shown.append(done)
        return "id"

    monkeypatch.setattr(pretrain, "create_progress_artifact", create)
    monkeypatch.setattr(pretrain, "update_progress_artifact", lambda artifact, done, description: shown.append(done))
    monkeypatch.setattr(pretrain, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    show = pretrain.progress("pretrain x", 100)
    for step, count in ((1, 1), (2, 1), (3, 2)):        # the second comes before it is time to try again
        show(line(step))
        until(lambda count=count: len(calls) == count and not sending())
        clock[0] += pretrain.PAUSE - 1 if step == 1 else pretrain.PAUSE + 1
    for step in range(4, 9):
        show(line(step))
        clock[0] += pretrain.EVERY + 1
    assert calls == [1.0, 3.0, 4.0] and not shown       # one hangs, and none is sent beside it
    assert sum("Prefect does not take its progress (OSError)" in text for text in caplog.messages) == 1
    going.set()
    until(lambda: not sending())
    show(line(100))
    assert shown == [4.0, 100.0]


def test_the_patience_of_those_who_stop_a_training_is_in_order(caplog):
    assert Processes().grace < supervise.FLOW_GRACE
    rest = supervise.COMMAND_GRACE + supervise.REST_GRACE
    assert supervise.FLOW_GRACE + rest < 90 < embedded.STOP_SECONDS            # 90: what the files in infra/ say
    pretrain.check_grace(Processes())
    assert not caplog.messages
    pretrain.check_grace(Processes(grace=300))
    assert "setting processes.grace: ranks may take 300 seconds" in caplog.text


def sending() -> bool:
    return any(thread.name == "progress" for thread in threading.enumerate())


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_run_of_so_many_epochs_is_as_long_as_its_lines_say(monkeypatch):
    shown = []
    monkeypatch.setattr(pretrain, "create_progress_artifact", lambda done, description: shown.append(description))
    show = pretrain.progress("finetune x", 0)
    show(line(1))                                       # of a version that did not say
    assert not sending() and not shown
    show(line(2, steps=8))
    until(lambda: shown)
    assert shown[0].startswith("finetune x: step 2 of 8, ") and shown[0].endswith(", 0:00:12 left")
