"""A large model answers from the mapped file first, and moves to full speed while it runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_artifacts import expected, sample

from leptonc.runtime import load
from leptonc.runtime.engines.ort import cpu as ort_engine
from leptonc.runtime.errors import EngineError, InputError


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_engine, "SMALL_BYTES", 0)


class Opened:
    """Counts the sessions that were opened, and can hold up or fail the full one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full: list[bool] = []
        self.gate = threading.Event()
        self.problem: EngineError | None = None
        self.gate.set()
        real = ort_engine.OrtEngine._open

        def opening(engine: Any, *, full: bool) -> Any:
            self.full.append(full)
            if full:
                self.gate.wait()
            if full and self.problem is not None:
                raise self.problem
            return real(engine, full=full)

        monkeypatch.setattr(ort_engine.OrtEngine, "_open", opening)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


def check(answer: dict[str, np.ndarray], x: np.ndarray) -> None:
    np.testing.assert_allclose(answer["y"], expected(x), rtol=1e-5, atol=1e-5)


def test_the_first_answer_comes_without_preparation(linear: Path, opened: Opened) -> None:
    check(load(linear)(x=sample()), sample())
    assert opened.full == [False]


def test_the_second_run_starts_the_preparation_and_does_not_wait(
    linear: Path, opened: Opened
) -> None:
    opened.gate.clear()
    session = load(linear)
    for seed in range(4):
        check(session(x=sample(seed=seed)), sample(seed=seed))
    opened.gate.set()
    session.warm_up()
    check(session(x=sample()), sample())
    assert opened.full == [False, True]


def test_warming_up_prepares_before_any_run(linear: Path, opened: Opened) -> None:
    session = load(linear)
    session.warm_up()
    session.warm_up()
    check(session(x=sample()), sample())
    check(session(x=sample()), sample())
    assert opened.full == [False, True]


def test_an_eager_load_prepares_at_once(linear: Path, opened: Opened) -> None:
    session = load(linear, eager=True)
    session.warm_up()
    first, second = session(x=sample()), session(x=sample())
    np.testing.assert_array_equal(first["y"], second["y"])
    assert opened.full == [True]


def test_a_small_model_is_always_prepared_at_once(
    linear: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_engine, "SMALL_BYTES", 2048)
    load(linear)(x=sample())
    assert opened.full == [True]


def test_a_binding_is_made_on_the_prepared_session(linear: Path, opened: Opened) -> None:
    x = sample()
    binding = load(linear).bind({"x": x})
    assert opened.full == [False, True]
    check(dict(binding.run()), x)


def test_a_preparation_that_fails_leaves_the_session_working(linear: Path, opened: Opened) -> None:
    opened.problem = EngineError("out of memory")
    session = load(linear)
    for _ in range(3):
        check(session(x=sample()), sample())
    with pytest.raises(EngineError, match="out of memory"):
        session.warm_up()
    check(session(x=sample()), sample())


def test_many_threads_move_over_together(linear: Path, opened: Opened) -> None:
    session = load(linear, threads=1)
    barrier, wrong = threading.Barrier(8), []

    def hammer(seed: int) -> None:
        barrier.wait()
        for turn in range(30):
            x = sample(seed=seed * 100 + turn)
            if not np.allclose(session(x=x)["y"], expected(x), rtol=1e-4, atol=1e-4):
                wrong.append((seed, turn))

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.warm_up()
    assert wrong == []
    assert opened.full == [False, True]


def test_a_session_that_is_closed_while_it_prepares_says_so(linear: Path, opened: Opened) -> None:
    opened.gate.clear()
    session = load(linear)
    session(x=sample())
    session(x=sample())
    session.close()
    opened.gate.set()
    with pytest.raises(InputError, match="the session is closed"):
        session(x=sample())
