"""What the flow shows of a training while it goes on."""

from types import SimpleNamespace

from flows import pretrain


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
    assert shown[0] == ("new", 1.0, "pretrain x: step 1 of 100, loss 4.9900, 12,346 tokens/s, 0:03:18 left")
    assert shown[-1] == ("id", 100.0, "pretrain x: step 100 of 100, loss 4.0000, 12,346 tokens/s, MFU 41.2 %, "
                                      "1.2346 bits a byte, 0:00:00 left")
    assert 4 <= len(shown) <= 7                         # one in ten seconds or so: each is an event


def test_a_run_of_unknown_length_has_no_bar(monkeypatch):
    monkeypatch.setattr(pretrain, "create_progress_artifact", lambda *_, **__: 1 / 0)
    pretrain.progress("finetune x", 0)(line(1))
