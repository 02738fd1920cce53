import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickseg_infer.click_maps import (
    _EDGE_COST,
    _PATH_COST,
    centres_of,
    draw_disks,
    geodesic_proximity,
    intensity_difference,
)

voxels = st.tuples(st.integers(-6, 25), st.integers(-6, 22), st.integers(-6, 30))


def naive_disks(centres: list, radius: int, shape: tuple) -> np.ndarray:
    grid = np.indices(shape)
    out = np.zeros(shape, np.float32)
    for centre in centres:
        offset = grid - np.array(centre)[:, None, None, None]
        out[(offset**2).sum(axis=0) <= radius**2] = 1
    return out


@settings(max_examples=60, deadline=None)
@given(st.lists(voxels, max_size=5), st.lists(voxels, max_size=5), st.integers(0, 6))
def test_disks_equal_the_naive_ones_bit_for_bit(before: list, centres: list, radius: int) -> None:
    out = np.full((20, 16, 24), 7, np.float32)
    draw_disks(centres_of(before), radius, out)
    assert np.array_equal(out, naive_disks(before, radius, out.shape))
    draw_disks(centres_of(centres), radius, out, drawn=centres_of(before))
    assert np.array_equal(out, naive_disks(centres, radius, out.shape))


def test_a_far_click_changes_nothing() -> None:
    near, both = np.empty((2, 16, 16, 16), np.float32)
    draw_disks(centres_of([(8, 8, 8)]), 3, near)
    draw_disks(centres_of([(8, 8, 8), (8, 8, 20)]), 3, both)
    assert np.array_equal(near, both)


def dijkstra(cells: np.ndarray, seeds: list) -> np.ndarray:
    """The exact shortest path over 26 neighbours."""
    distance = np.full(cells.shape, np.inf)
    queue = []
    for seed in seeds:
        distance[seed] = 0
        heapq.heappush(queue, (0.0, seed))
    steps = [s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)]
    while queue:
        reached, here = heapq.heappop(queue)
        if reached > distance[here]:
            continue
        for step in steps:
            there = tuple(np.add(here, step))
            if all(0 <= p < n for p, n in zip(there, cells.shape, strict=True)):
                cost = _PATH_COST * np.linalg.norm(step)
                cost += _EDGE_COST * abs(float(cells[there]) - float(cells[here]))
                if reached + cost < distance[there]:
                    distance[there] = reached + cost
                    heapq.heappush(queue, (reached + cost, there))
    return distance


def test_geodesic_distance_is_close_to_the_shortest_path(rng: np.random.Generator) -> None:
    coarse = rng.uniform(-1, 1, (3, 4, 3)).astype(np.float32)
    cells = np.kron(coarse, np.ones((4, 4, 4), np.float32))
    cells += rng.normal(0, 0.02, cells.shape).astype(np.float32)
    ct = np.kron(cells, np.ones((2, 2, 2), np.float32))
    clicks = [(4, 6, 5), (20, 25, 19)]
    out = np.empty_like(ct)
    geodesic_proximity(ct, centres_of(clicks), out)
    exact = dijkstra(cells, [tuple(p // 2 for p in click) for click in clicks])
    swept = -np.log(out[::2, ::2, ::2])
    assert (swept >= exact - 1e-4).all()  # never shorter than the shortest
    assert np.median(swept - exact) < 1e-4
    assert np.mean(swept - exact) < 0.02 * exact.mean()


def naive_sweeps(ct: np.ndarray, seeds: list, rounds: int) -> np.ndarray:
    """Plane by plane as the kernel sweeps, in float32, with every operation in the same order."""
    path, edge = np.float32(_PATH_COST), np.float32(_EDGE_COST)
    steps = [path, path * np.float32(1.4142135), path * np.float32(1.7320508)]
    cells = sum(ct[z::2, y::2, x::2] for z, y, x in itertools.product((0, 1), repeat=3))
    cells = np.pad(cells * np.float32(0.125), 1)
    distance = np.full(cells.shape, np.inf, np.float32)
    for z, y, x in seeds:
        distance[z // 2 + 1, y // 2 + 1, x // 2 + 1] = 0
    for _, axis in itertools.product(range(rounds), range(3)):
        d, c = np.moveaxis(distance, axis, 0), np.moveaxis(cells, axis, 0)
        last = len(d) - 2
        forwards = [(p, p - 1) for p in range(1, last + 1)]
        for p, q in forwards + [(p, p + 1) for p in range(last, 0, -1)]:
            for dy, dx in itertools.product((-1, 0, 1), repeat=2):
                near = slice(1 + dy, d.shape[1] - 1 + dy), slice(1 + dx, d.shape[2] - 1 + dx)
                own = d[p, 1:-1, 1:-1]
                crossed = edge * abs(c[p, 1:-1, 1:-1] - c[q][near])
                own[:] = np.minimum(own, d[q][near] + steps[abs(dy) + abs(dx)] + crossed)
    return np.exp(-distance[1:-1, 1:-1, 1:-1]).repeat(2, 0).repeat(2, 1).repeat(2, 2)


def test_sweeps_equal_the_naive_ones(rng: np.random.Generator) -> None:
    ct = rng.uniform(-1, 1, (18, 14, 22)).astype(np.float32)
    clicks = [(3, 4, 5), (17, 0, 21)]
    out = np.empty_like(ct)
    geodesic_proximity(ct, centres_of(clicks), out)
    assert out == pytest.approx(naive_sweeps(ct, clicks, 2), rel=1e-6)
    assert not np.allclose(out, naive_sweeps(ct, clicks, 1), rtol=1e-6)


def test_an_edge_is_farther_than_open_space() -> None:
    ct = np.zeros((16, 16, 32), np.float32)
    ct[:, :, 20:] = 1.0
    out = np.empty_like(ct)
    geodesic_proximity(ct, centres_of([(8, 8, 14)]), out)
    assert out[8, 8, 14] == 1
    assert out[8, 8, 4] > 0.8
    assert out[8, 8, 24] < 0.1


def test_no_clicks_no_proximity() -> None:
    ct = np.zeros((8, 8, 8), np.float32)
    out = np.ones_like(ct)
    geodesic_proximity(ct, centres_of([]), out)
    assert not out.any()
    geodesic_proximity(ct, centres_of([(3, 3, 9), (-1, 0, 0)]), out)
    assert not out.any()


def test_intensity_difference_is_to_the_most_alike_click(rng: np.random.Generator) -> None:
    ct = rng.uniform(-1, 1, (8, 10, 12)).astype(np.float32)
    clicks = [(1, 3, 5), (6, 8, 2), (99, 0, 0)]
    out = np.empty_like(ct)
    intensity_difference(ct, centres_of(clicks), out)
    means = [ct[0:2, 2:4, 4:6].mean(), ct[6:8, 8:10, 2:4].mean()]
    expected = np.minimum(abs(ct - means[0]), abs(ct - means[1]))
    assert out == pytest.approx(expected, abs=1e-6)
    intensity_difference(ct, centres_of([]), out)
    assert (out == 2).all()
