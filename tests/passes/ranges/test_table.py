"""Calibration tables: they add up exactly, and each method finds what the raw data says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.passes.errors import RangesError
from leptonc.passes.graph.fingerprint import GraphFingerprint
from leptonc.passes.ranges.file import _digest, read_checkpoint, read_ranges, write_ranges
from leptonc.passes.ranges.histogram import BINS, count, distribution
from leptonc.passes.ranges.methods import METHODS, Request, mse, squared_error
from leptonc.passes.ranges.observed import Observed
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.ranges.tensor_range import observe
from leptonc.passes.ranges.totals import NotObservableError, RangeTotals

GRAPH = GraphFingerprint({"inputs": "x"}, {"y": "Relu(x) to y"}, {})
TENSOR = (Observed("y", 1, "Relu node 'r'"),)
quick = settings(deadline=None, max_examples=25)


def samples_of(seed: int, count: int, scale: float = 1.0, offset: float = 0.0):
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.01, 1.0, 30.0], (count, 1, 1))
    data = rng.standard_normal((count, 9, 4)) * spread * scale + offset
    return data.astype(np.float32)


def table(samples) -> Ranges:
    totals = RangeTotals(GRAPH, TENSOR, {"z": "y"})
    for sample in samples:
        totals.add({"y": sample}, sample.tobytes()[:32])
    return totals.ranges()


def written(tmp_path, ranges, name="r.json"):
    write_ranges(tmp_path / name, ranges)
    return (tmp_path / name).read_bytes()


@quick
@given(st.integers(0, 2**32), st.integers(2, 12), st.data())
def test_the_table_is_the_same_for_any_order_and_any_split(tmp_path_factory, seed, size, data):
    samples = samples_of(seed, size)
    order = data.draw(st.permutations(range(size)))
    cut = data.draw(st.integers(1, size - 1))
    folder = tmp_path_factory.mktemp("tables")
    whole = written(folder, table(samples))
    assert written(folder, table(samples[order])) == whole
    first, second = table(samples[order[:cut]]), table(samples[order[cut:]])
    assert written(folder, first.plus(second)) == whole
    assert written(folder, second.plus(first)) == whole


@quick
@given(
    st.integers(0, 2**32), st.sampled_from([1e-30, 1e-4, 1.0, 1e20]), st.sampled_from([0.0, 5.0])
)
def test_counts_and_bounds_are_those_of_the_raw_data(seed, scale, offset):
    samples = samples_of(seed, 5, scale, offset * scale)
    seen = table(samples).tensors["y"]
    assert seen.counts.sum() == samples.size
    assert (seen.minimum, seen.maximum) == (samples.min(), samples.max())
    lows = samples.astype(np.float64).min(axis=(1, 2)).mean()
    highs = samples.astype(np.float64).max(axis=(1, 2)).mean()
    assert seen.mean_bounds == pytest.approx((lows, highs), rel=1e-12)
    assert seen.channels.tolist() == np.abs(samples).max(axis=(0, 1)).tolist()
    found = distribution(seen.counts)
    inside = [(low <= samples) & (samples <= high) for low, high in zip(found.low, found.high)]
    assert [int(each.sum()) for each in inside] == found.counts.tolist()


@quick
@given(st.integers(0, 2**32), st.sampled_from([90.0, 99.0, 99.9, 100.0]))
def test_percentile_leaves_out_what_it_says_within_one_bin(seed, percent):
    samples = samples_of(seed, 20)
    low, high = table(samples).range("y", "percentile", percent=percent)
    ascending = np.sort(samples.reshape(-1)).astype(np.float64)
    left_out = int(ascending.size * (100 - percent) / 100)
    expected = ascending[left_out], ascending[-1 - left_out]
    for found, exact in zip((low, high), expected, strict=True):
        assert abs(found - exact) <= abs(exact) / 128 + 1e-38


@quick
@given(st.integers(0, 2**32), st.booleans())
def test_mse_is_as_good_as_the_best_range_that_trying_finds(seed, symmetric):
    samples = samples_of(seed, 60)
    values = samples.reshape(-1).astype(np.float64)
    weights = np.ones_like(values)
    low, high = table(samples).range("y", "mse", symmetric=symmetric)

    def error(bounds):
        return squared_error(values, weights, bounds, 256)

    full = table(samples).range("y", "minmax", symmetric=symmetric)
    parts = np.arange(1, 51) / 50
    tried = min(error((full[0] * part, full[1] * part)) for part in parts)
    assert error((low, high)) <= tried * 1.15
    assert not symmetric or low == -high


def raw_divergence(values, threshold, bins=2048, levels=128):
    """Kullback-Leibler as Migacz has it, on the raw magnitudes."""
    largest = values.max()
    edge = round(threshold / largest * bins)
    linear, _ = np.histogram(values[values > 0], bins=bins, range=(0.0, largest))
    reference = linear[:edge].astype(float)
    reference[-1] += linear[edge:].sum()
    candidate = np.zeros(edge)
    bounds = np.linspace(0, edge, levels + 1).astype(int)
    for start, stop in zip(bounds[:-1], bounds[1:]):
        part = linear[start:stop]
        candidate[start:stop] = np.where(part > 0, part.sum() / max(1, (part > 0).sum()), 0.0)
    p, q = reference / reference.sum(), candidate / candidate.sum()
    q = np.where((p > 0) & (q == 0), 1e-12, q)
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 2**32))
def test_entropy_finds_nearly_the_least_divergence_of_the_raw_data(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.standard_normal(60_000), rng.uniform(40, 60, 6)])
    sample = values.astype(np.float32).reshape(1, -1, 6)
    low, high = table(sample).range("y", "entropy", symmetric=True)
    magnitudes = np.abs(sample.reshape(-1).astype(np.float64))
    edges = np.arange(128, 2049, 64) / 2048 * magnitudes.max()
    divergences = [raw_divergence(magnitudes, edge) for edge in edges]
    best, worst = min(divergences), divergences[-1]
    found = raw_divergence(magnitudes, high)
    assert low == -high < 0
    # Clipping six elements of 60,000 pays.
    assert high < 20
    assert found - best <= 0.5 * (worst - best)


@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_zero_and_stays_inside_minmax(method):
    for offset in (-50.0, 0.0, 50.0):
        ranges = table(samples_of(1, 6, 0.1, offset))
        low, high = ranges.range("y", method)
        least, most = ranges.range("y", "minmax")
        assert least <= low <= 0.0 <= high <= most
        low, high = ranges.range("y", method, symmetric=True)
        assert low == -high


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_an_empty_range(method):
    assert table(np.zeros((3, 2, 4), np.float32)).range("y", method) == (0.0, 0.0)


def test_average_is_the_mean_of_the_samples_own_bounds():
    samples = np.array([[[-1.0, 2.0]], [[-3.0, 4.0]]], np.float32)
    ranges = table(samples)
    assert ranges.range("y", "average") == (-2.0, 3.0)
    assert ranges.range("z", "minmax") == (-3.0, 4.0)


def test_the_number_of_samples_leaves_the_memory_of_the_totals_alone():
    totals = RangeTotals(GRAPH, TENSOR, {})
    sizes = []
    for sample in samples_of(3, 40):
        totals.add({"y": sample}, bytes(32))
        seen = totals.ranges().tensors["y"]
        sizes.append((seen.counts.nbytes, seen.channels.nbytes, len(totals.ranges().tensors)))
    assert set(sizes) == {(BINS * 8, 16, 1)}


@pytest.mark.parametrize(
    ("bad", "what"),
    [(np.nan, "holds NaN"), (np.inf, "holds an infinity"), (-np.inf, "holds an infinity")],
)
def test_a_sample_that_cannot_be_observed_leaves_no_trace(tmp_path, bad, what):
    tensors = (*TENSOR, Observed("w", None, None))
    totals = RangeTotals(GRAPH, tensors, {})
    good = samples_of(0, 1)[0]
    totals.add({"y": good, "w": good}, b"\1" * 32)
    before = written(tmp_path, totals.ranges())
    spoiled = good.copy()
    spoiled[3, 2] = bad
    with pytest.raises(NotObservableError, match=what) as caught:
        totals.add({"y": good, "w": spoiled}, b"\2" * 32)
    assert caught.value.tensor.name == "w"
    assert written(tmp_path, totals.ranges()) == before


def test_a_table_survives_its_file(tmp_path):
    ranges = table(samples_of(5, 4))
    first = written(tmp_path, ranges)
    again = read_ranges(tmp_path / "r.json")
    assert written(tmp_path, again, "s.json") == first
    assert again.samples == 4 and again.graph == GRAPH and again.aliases == {"z": "y"}
    assert (again.tensors["y"].counts == ranges.tensors["y"].counts).all()


def tampered(path, change, *, honest_digest):
    content = json.loads(path.read_text())
    change(content)
    if honest_digest:
        content["digest"] = _digest(content)
    path.write_text(json.dumps(content))


DAMAGE = [
    (lambda t: t["tensors"]["y"].update(maximum=1e6), "contradict"),
    (lambda t: t["tensors"]["y"].update(maximum=0.1), "no float32"),
    (lambda t: t["tensors"]["y"].update(minimum="0"), "for a bound"),
    (lambda t: t["tensors"]["y"].update(samples=3), "not observed in every sample"),
    (lambda t: t["tensors"]["y"].update(sum_minimum="0x0g"), "hexadecimal"),
    (lambda t: t["tensors"]["y"].update(sum_minimum=hex(1 << 200)), "contradict"),
    (lambda t: t["tensors"]["y"].update(histogram="AAAA"), "cannot be unpacked"),
    (lambda t: t["tensors"]["y"].update(histogram=7), "lacks its histogram"),
    (lambda t: t["tensors"]["y"].update(channels="AAAA"), "cannot be unpacked"),
    (lambda t: t.update(samples=-1), "samples"),
    (lambda t: t.update(samples=True), "samples"),
    (lambda t: t.update(data="xyz"), "hexadecimal"),
    (lambda t: t.update(tensors=[]), "not an object"),
    (lambda t: t.update(aliases={"a": "gone"}), "does not hold"),
    (lambda t: t["graph"].update(nodes={"a": 1}), "other than text"),
    (lambda t: t.update(format=99), "format 99"),
]


@pytest.mark.parametrize(("change", "what"), DAMAGE)
def test_a_table_that_cannot_be_is_refused_even_with_a_right_digest(tmp_path, change, what):
    written(tmp_path, table(samples_of(5, 4)))
    tampered(tmp_path / "r.json", change, honest_digest=True)
    with pytest.raises(RangesError, match=what) as caught:
        read_ranges(tmp_path / "r.json")
    assert "r.json" in str(caught.value)


def test_an_edited_table_is_found_out_by_its_digest(tmp_path):
    written(tmp_path, table(samples_of(5, 4)))
    tampered(tmp_path / "r.json", lambda t: t["aliases"].clear(), honest_digest=False)
    with pytest.raises(RangesError, match="do not match its digest"):
        read_ranges(tmp_path / "r.json")


@quick
@given(st.data())
def test_a_cut_or_spoiled_file_is_one_clear_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    whole = written(folder, table(samples_of(5, 2)))
    place = data.draw(st.integers(0, len(whole) - 3))
    spoiled = bytearray(whole)
    spoiled[place] ^= 0x15
    for content in (whole[:place], bytes(spoiled)):
        (folder / "r.json").write_bytes(content)
        with pytest.raises(RangesError):
            read_ranges(folder / "r.json")


def test_a_file_that_is_missing_and_one_of_another_kind(tmp_path):
    with pytest.raises(RangesError, match="no such calibration table"):
        read_ranges(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(RangesError, match="not a calibration table"):
        read_ranges(tmp_path / "other.json")
    with pytest.raises(RangesError, match="cannot be read"):
        read_ranges(tmp_path)


def test_a_checkpoint_is_no_table(tmp_path):
    write_ranges(tmp_path / "r.json", table(samples_of(5, 4)), {"chain": "00"})
    assert read_checkpoint(tmp_path / "r.json")[1] == {"chain": "00"}
    with pytest.raises(RangesError, match="unfinished calibration, after 4 samples"):
        read_ranges(tmp_path / "r.json")


def test_tables_that_do_not_belong_together_are_not_added():
    first, second = table(samples_of(1, 3)), table(samples_of(2, 3))
    with pytest.raises(RangesError, match="same 3 samples"):
        first.plus(first)
    other = replace(second, graph=GraphFingerprint({"inputs": "x"}, {"y": "Tanh(x) to y"}, {}))
    with pytest.raises(RangesError, match="another graph") as caught:
        first.plus(other)
    assert "'y': Relu(x) to y there, Tanh(x) to y here" in str(caught.value)
    with pytest.raises(RangesError, match="'y' is in one table only"):
        first.plus(replace(second, tensors={}))
    narrow = replace(second.tensors["y"], channels=np.ones(3, np.float32))
    with pytest.raises(RangesError, match="another number of channels"):
        first.plus(replace(second, tensors={"y": narrow}))


def test_what_cannot_be_asked_for():
    ranges = table(samples_of(1, 3))
    with pytest.raises(RangesError, match="knows nothing of tensor 'q'"):
        ranges.range("q")
    with pytest.raises(RangesError, match="no range method 'best'"):
        ranges.range("y", "best")
    with pytest.raises(RangesError, match="percentile of 50"):
        ranges.range("y", "percentile", percent=50.0)
    assert "y" in ranges and "z" in ranges and "q" not in ranges


def test_halves_are_counted_as_the_numbers_they_are():
    halves = np.array([[0.5, -2.0], [65504.0, 6e-8]], np.float16)
    seen = observe(halves)
    assert (seen.counts == count(halves.astype(np.float32))).all()
    assert seen.maximum == 65504.0
    assert mse(seen, Request())[1] > 0
