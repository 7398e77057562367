"""IBAL's parts of the team, what their actions tell, and the search for those that tell least, against brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from attacks.ibal.estimators import draw_groups
from attacks.ibal.models import GroupModel, dependence, group_loss
from attacks.ibal.search import TIE, Search, descend


def test_parts_are_drawn_uniformly() -> None:
    u = torch.rand(10000, 5, generator=torch.Generator().manual_seed(0))
    group = draw_groups(u[:, 1:], (u[:, 0] * 3).floor())  # k = 0, 1, 2 of 4
    size = group.sum(1)
    assert all(abs(int((size == k).sum()) - 3333) < 200 for k in range(3))
    code = (group[size == 2] * torch.tensor([1, 2, 4, 8])).sum(1)
    seen = torch.bincount(code, minlength=16)[[3, 5, 6, 9, 10, 12]].float()
    expected = seen.sum() / 6
    assert float(((seen - expected) ** 2 / expected).sum()) < 15.1  # chi-square of 5 degrees of freedom at 1%


def parts(seed: int, lanes: int = 40, n: int = 4, A: int = 3, C: int = 5) -> dict[str, torch.Tensor]:
    """Random inputs of a search with two targets each."""
    gen = torch.Generator().manual_seed(seed)
    avail = torch.rand(lanes, n, A, generator=gen) < 0.7
    avail[..., 0] = True
    noise = torch.rand(lanes, n, A, generator=gen).masked_fill(~avail, -1)
    return {
        "context": torch.randn(lanes, n, C, generator=gen),
        "avail": avail,
        "intended": noise.argmax(-1),
        "group": draw_groups(torch.rand(lanes, n, generator=gen), torch.full((lanes,), 2)),
        "alive": torch.rand(lanes, n, generator=gen) < 0.8,
    }


def group_model(n: int = 4, C: int = 5, A: int = 3) -> GroupModel:
    torch.manual_seed(0)
    model = GroupModel(n, C, A, 16)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0)
    return model


def cost_of(model: GroupModel, data: dict[str, torch.Tensor], score: str) -> Any:
    def cost(lanes: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        chosen = [data[name][lanes] for name in ("intended", "group", "alive")]
        return dependence(model, data["context"][lanes], candidates, *chosen, score)

    return cost


@pytest.mark.parametrize("score", ["kl", "pmi"])
def test_what_actions_tell_is_the_divergence_of_two_passes(score: str) -> None:
    model, data = group_model(), parts(0)
    actions = data["intended"]
    inside, others = data["group"] & data["alive"], ~data["group"] & data["alive"]
    one_hot = torch.nn.functional.one_hot(actions, 3).float()
    flag = inside[..., None].float()
    tokens = torch.cat([torch.cat([data["context"] * flag, flag], -1).flatten(1), (one_hot * flag).flatten(1)], 1)
    without = tokens.clone()
    without[:, -12:] = 0.0
    p, q = (model.out(model.second(model.first(x).relu()).relu()).view(-1, 4, 3).softmax(-1) for x in (tokens, without))
    information = (p * (p / q).log()).sum(-1) if score == "kl" else (p / q).log().gather(2, actions[..., None])[..., 0]
    found = cost_of(model, data, score)(torch.arange(40), actions[:, None])[:, 0]
    torch.testing.assert_close(found, (information * others).sum(1), rtol=1e-4, atol=1e-5)
    if score == "kl":
        assert found.min() >= -1e-6 and found.max() > 0.1


def test_the_enumerated_minimum_is_that_of_brute_force() -> None:
    model, data = group_model(), parts(1)
    target = data["group"] & data["alive"]
    search = Search(4, 3, 2, 512, 2)
    u = torch.rand(40, search.draws, generator=torch.Generator().manual_seed(0))
    cost = cost_of(model, data, "kl")
    forced = search(cost, data["avail"], target, data["intended"], u)
    assert torch.equal(forced[~target], data["intended"][~target])
    assert data["avail"].gather(2, forced[..., None]).all()
    assert (forced != data["intended"]).any()
    for lane in range(40):
        free = [
            data["avail"][lane, i].nonzero().flatten().tolist() if target[lane, i] else [int(data["intended"][lane, i])]
            for i in range(4)
        ]
        every = torch.tensor(list(itertools.product(*free)))
        least = cost(torch.tensor([lane]), every[None]).min()
        assert cost(torch.tensor([lane]), forced[lane][None, None]) <= least + TIE


def test_descent_never_pays_more_and_ends_where_one_change_does_not_help() -> None:
    model, data = group_model(), parts(2)
    target, rows = data["group"] & data["alive"], torch.arange(40)
    cost = cost_of(model, data, "kl")
    order = target.float().argsort(-1, descending=True)[:, :2]
    noise = torch.zeros(40, 10, 3)
    now, before = data["intended"], cost(rows, data["intended"][:, None])[:, 0]
    for k in range(10):
        now = descend(
            lambda c: cost(rows, c), data["avail"], target, now, order[:, k % 2 : k % 2 + 1], noise[:, k : k + 1]
        )
        after = cost(rows, now[:, None])[:, 0]
        assert (after <= before + 1e-6).all()
        before = after
    for agent, action in itertools.product(range(4), range(3)):
        changed = now.clone()
        changed[:, agent] = action
        possible = target[:, agent] & data["avail"][:, agent, action]
        assert (cost(rows, changed[:, None])[:, 0] >= before - 1e-5)[possible].all()


def test_descent_serves_where_enumeration_would_be_too_long() -> None:
    """A limit of 4 sends lanes with more joint actions to the descent, and only those."""
    model, data = group_model(), parts(3)
    target = data["group"] & data["alive"]
    search = Search(4, 3, 2, 4, 2)
    u = torch.rand(40, search.draws, generator=torch.Generator().manual_seed(0))
    cost = cost_of(model, data, "kl")
    forced = search(cost, data["avail"], target, data["intended"], u)
    everything = Search(4, 3, 2, 512, 2)
    best = everything(cost, data["avail"], target, data["intended"], u.new_zeros(40, everything.draws))
    rows, start = torch.arange(40), data["intended"]
    few = torch.where(target, data["avail"].sum(-1), 1).prod(-1) <= 4
    spent = {name: cost(rows, x[:, None])[:, 0] for name, x in {"found": forced, "best": best, "start": start}.items()}
    assert few.any() and (~few).any()
    assert (spent["found"] <= spent["best"] + TIE)[few].all()
    assert (spent["found"] <= spent["start"] + 1e-6).all() and (spent["found"] < spent["start"] - TIE)[~few].any()
    assert torch.equal(forced[~target], data["intended"][~target])
    assert data["avail"].gather(2, forced[..., None]).all()


def test_equal_costs_are_drawn_among() -> None:
    search = Search(2, 3, 1, 512, 2)
    lanes = 3000
    u = torch.rand(lanes, search.draws, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([True, False]).expand(lanes, 2)
    avail = torch.tensor([True, False, True]).expand(lanes, 2, 3)
    flat = search(lambda rows, c: torch.zeros(c.shape[:2]), avail, target, torch.zeros(lanes, 2, dtype=torch.long), u)
    share = torch.bincount(flat[:, 0], minlength=3) / lanes
    assert share.tolist() == pytest.approx([0.5, 0, 0.5], abs=0.03) and not flat[:, 1].any()


def test_the_group_model_learns_who_follows_whom() -> None:
    """Agent 1 copies agent 0: with 0 in the group, its action tells log 2 about 1's, and nothing the other way round
    about agent 2."""
    torch.manual_seed(0)
    gen = torch.Generator().manual_seed(0)
    model = GroupModel(3, 1, 2, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    everyone, context = torch.ones(256, 3, dtype=torch.bool), torch.zeros(256, 3, 1)
    for _ in range(200):
        actions = torch.randint(0, 2, (256, 3), generator=gen)
        actions[:, 1] = actions[:, 0]
        group = draw_groups(torch.rand(256, 3, generator=gen), torch.ones(256))
        loss = group_loss(model, context, actions, group, everyone)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for member, information in ((0, math.log(2)), (1, math.log(2)), (2, 0.0)):
        group = torch.arange(3).expand(256, 3) == member
        found = dependence(model, context, actions[:, None], actions, group, everyone, "kl").mean()
        assert float(found) == pytest.approx(information, abs=0.05)
