"""The replay ring: order, growth, trimming, refusals, restoring."""

import pytest
import torch

from marl.core.types import ConfigError, EpisodeBatch, Field, core_fields, episode_bytes
from marl.learn.replay import FIRST_CHUNK, EpisodeReplay
from tests.support.helpers import make_spec, random_batch

SPEC = make_spec()


def numbered(first: int, count: int, length: int = 3) -> EpisodeBatch:
    """Return episodes in which every reward is the episode's number."""
    batch = random_batch(SPEC, count).trim(length)
    batch.data["reward"] = torch.arange(first, first + count).float()[:, None].expand(-1, length + 1).clone()
    batch.data["filled"] = (torch.arange(length + 1) < length).expand(count, -1).clone()
    batch.data["length"] = torch.full((count,), length, dtype=torch.int16)
    return batch


def stored(replay: EpisodeReplay) -> set[int]:
    sample = replay.sample(len(replay), torch.Generator().manual_seed(0), "cpu")
    return {int(r) for r in sample.reward[:, 0]}


def test_the_oldest_leave_first() -> None:
    replay = EpisodeReplay(5, SPEC.episode_limit, core_fields(SPEC))
    replay.add(numbered(0, 3))
    assert stored(replay) == {0, 1, 2}
    replay.add(numbered(3, 4))
    assert stored(replay) == {2, 3, 4, 5, 6} and len(replay) == 5
    replay.add(numbered(7, 9))  # more than fits: the newest stay
    assert stored(replay) == {11, 12, 13, 14, 15}


def test_storage_grows_and_keeps_what_it_holds() -> None:
    replay = EpisodeReplay(4 * FIRST_CHUNK, SPEC.episode_limit, core_fields(SPEC))
    rooms = []
    for i in range(0, 3 * FIRST_CHUNK, 32):
        replay.add(numbered(i, 32))
        rooms.append(replay._lengths.shape[0])
    assert rooms[0] == FIRST_CHUNK and rooms[-1] == 4 * FIRST_CHUNK and len(set(rooms)) == 3
    assert stored(replay) == set(range(3 * FIRST_CHUNK))


def test_samples_are_different_episodes_cut_to_the_longest() -> None:
    replay = EpisodeReplay(20, SPEC.episode_limit, core_fields(SPEC))
    replay.add(numbered(0, 10, length=2))
    replay.add(numbered(10, 10, length=5))
    sample = replay.sample(20, torch.Generator().manual_seed(1), "cpu")
    assert sample.horizon == 5 and len(set(sample.reward[:, 0].tolist())) == 20
    short = sample.reward[:, 0] < 10
    assert not sample.filled[short, 2:].any() and (sample.reward[short, 3:] == 0).all()  # padding is clean
    with pytest.raises(ValueError, match="cannot sample 21 episodes from 20"):
        replay.sample(21, torch.Generator(), "cpu")


def test_a_short_episode_overwrites_all_of_a_long_one() -> None:
    replay = EpisodeReplay(1, SPEC.episode_limit, core_fields(SPEC))
    replay.add(numbered(1, 1, length=7))
    replay.add(numbered(2, 1, length=2))
    assert replay._data["reward"][0].tolist() == [2.0] * 3 + [0.0] * (SPEC.episode_limit - 2)
    assert int(replay._data["filled"].sum()) == 2


def test_a_ring_that_cannot_fit_is_refused_with_the_numbers() -> None:
    fields = {"big": Field((2**20,))}
    assert episode_bytes(fields, 3) == 4 * 4 * 2**20
    with pytest.raises(ConfigError, match=r"replay.capacity=10000000 needs 156250.0 GiB .16.00 MiB per episode.*fit"):
        EpisodeReplay(10_000_000, 3, fields)


def test_a_missing_field_is_named() -> None:
    replay = EpisodeReplay(4, SPEC.episode_limit, {**core_fields(SPEC), "hit": Field((3,), torch.bool)})
    with pytest.raises(ValueError, match="hit"):
        replay.add(numbered(0, 2))


def test_restored_ring_continues_as_the_original() -> None:
    original = EpisodeReplay(6, SPEC.episode_limit, core_fields(SPEC))
    original.add(numbered(0, 8, length=4))
    copy = EpisodeReplay(6, SPEC.episode_limit, core_fields(SPEC))
    copy.load_state_dict(original.state_dict())
    for replay in (original, copy):
        replay.add(numbered(8, 3, length=6))
    a = original.sample(6, torch.Generator().manual_seed(3), "cpu")
    b = copy.sample(6, torch.Generator().manual_seed(3), "cpu")
    assert all(torch.equal(a[name], b[name]) for name in a.data)
    with pytest.raises(ConfigError, match="capacity"):
        EpisodeReplay(7, SPEC.episode_limit, core_fields(SPEC)).load_state_dict(original.state_dict())
