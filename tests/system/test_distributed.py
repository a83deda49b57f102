"""Who deals with what; what several processes do together stands in tests/faults/test_ranks.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src.system.distributed import ALONE, STORE, RankLostError, World, join_world
from src.system.own_ranks import own_ranks, usable_cores


def world(rank: int, size: int) -> World:
    one = World()
    one.rank, one.size = rank, size
    return one


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 17])
def test_every_member_is_dealt_once_and_costs_are_nearly_equal(count: int, size: int) -> None:
    costs = np.random.default_rng(count).integers(100, 200, count)
    shares = [world(rank, size).deal(costs) for rank in range(size)]
    assert sorted(number for share in shares for number in share) == list(range(count))
    assert all(share == sorted(share) for share in shares)
    loads = [costs[share].sum() for share in shares]
    assert max(loads) - min(loads) <= 200
    members = list(range(count))
    assert sorted(one for rank in range(size) for one in world(rank, size).every(members)) == members


def test_a_process_alone_keeps_what_it_has() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = gradient = torch.tensor([0.1, 0.3])
    assert ALONE.average([parameter], 3, [1, 2.5]) == ([3, 1, 2.5], True)
    assert parameter.grad is gradient
    assert ALONE.collected(["a"]) == ["a"]
    assert ALONE.gather(5) == [5]
    assert ALONE.from_main("x") == "x"
    assert ALONE.ask(lambda world: world.rank) == [0]
    assert ALONE.of_others(lambda: pytest.fail("nobody asks")) == []


def test_the_environment_says_whether_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", STORE):
        monkeypatch.delenv(name, raising=False)
    assert join_world().size == 1
    monkeypatch.setenv("RANK", "1")  # of another program
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert join_world().size == 1


def test_a_process_that_cannot_start_is_named(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with (
        pytest.raises(RankLostError, match=r"rank 1: worker exited with code 3; use cpu_processes = 1"),
        own_ranks(ALONE, 2, [sys.executable, "-c", "import sys; sys.exit(3)"]) as join,
    ):
        join()
    assert torch.get_num_threads() == before


def test_one_process_starts_no_other() -> None:
    with own_ranks(ALONE, 1, ["no such program"]) as join:
        assert join() is ALONE
    assert usable_cores() >= 1
