"""The models with which IBAL predicts actions, and the dependence measured from their predictions. Losses and
scores are functions of tensors.

Dimensions: CLUB (Cheng et al. 2020, arXiv 2006.12013) in its conditional form, with the expectation over the discrete
label taken exactly. Groups: how informative the actions of one side of the team are about the other's, as a divergence
(as in social influence, Jaques et al. 2019) or as pointwise information. Axis letters: ``R`` rows, ``C`` context
features of an agent, ``W`` hidden units, ``K`` candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DimensionModel(nn.Module):
    """q(a_j | o_d, d, z) for every feature d at once, and q(a_j | z), for rows ``z`` [R, Z].

    Each feature enters through its own weight and bias vectors, added to the trunk's output for ``z``.
    """

    def __init__(self, z_dim: int, obs_dim: int, n_actions: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(z_dim, width), nn.ReLU(), nn.Linear(width, width))
        self.weight = nn.Parameter(torch.empty(obs_dim, width).uniform_(-1.0, 1.0))
        self.bias = nn.Parameter(torch.zeros(obs_dim, width))
        self.out = nn.Linear(width, n_actions)
        self.marginal = nn.Sequential(nn.Linear(z_dim, width), nn.ReLU(), nn.Linear(width, n_actions))

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map z [R, Z], next observations x [R, O] -> log q(. | x_d, z) [R, O, A], log q(. | z) [R, A]."""
        hidden = self.trunk(z)[:, None] + x[..., None] * self.weight + self.bias  # [R, O, W]
        return self.out(F.relu(hidden)).log_softmax(-1), self.marginal(z).log_softmax(-1)


def dimension_losses(given: Tensor, marginal: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return cross-entropies (0-d) of the actions long [R]: given [R, O, A], averaged over features, and marginal [R,
    A]."""
    with_x = F.nll_loss(given.flatten(0, 1), action[:, None].expand(given.shape[:2]).flatten())
    return with_x, F.nll_loss(marginal, action)


def dimension_scores(given: Tensor, marginal: Tensor, action: Tensor, estimator: str) -> Tensor:
    """Return scores [R, O] whose mean estimates I(o_d; a_j | z) in nats: given [R, O, A], marginal [R, A] (logs),
    action long [R].

    club: log q(y|x,z) - E_{y' ~ q(y'|z)} log q(y'|x,z), an upper bound; ce: log q(y|x,z) - log q(y|z).
    """
    chosen = given.gather(2, action[:, None, None].expand(-1, given.shape[1], 1)).squeeze(2)
    if estimator == "club":
        return chosen - (marginal.exp()[:, None] * given).sum(-1)
    return chosen - marginal.gather(1, action[:, None])


class GroupModel(nn.Module):
    """q(a_j | a of a group, c) for all agents j, of any group, and the same without the group's actions.

    The input holds per agent its context, its action as one-hot and a flag, all zero outside the group. Contexts and
    actions enter the first layer as a sum, so that another joint action needs no new pass over contexts.
    """

    def __init__(self, n_agents: int, context_dim: int, n_actions: int, width: int) -> None:
        super().__init__()
        self.n_agents, self.n_actions = n_agents, n_actions
        self.split = n_agents * (context_dim + 1)
        self.first = nn.Linear(self.split + n_agents * n_actions, width)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, n_agents * n_actions)

    def enter(self, context: Tensor, group: Tensor) -> Tensor:
        """Return the first layer [*, W] of context [*, n, C] and group bool [*, n], without actions."""
        flag = group[..., None].to(context.dtype)
        tokens = torch.cat([context * flag, flag], -1).flatten(-2)
        return F.linear(tokens, self.first.weight[:, : self.split], self.first.bias)

    def act(self, entered: Tensor, actions: Tensor, group: Tensor) -> Tensor:
        """Add the group's actions long [*, n] to the first layer [*, W]."""
        chosen = F.one_hot(actions, self.n_actions) * group[..., None]
        return entered + F.linear(chosen.flatten(-2).to(entered.dtype), self.first.weight[:, self.split :])

    def forward(self, entered: Tensor) -> Tensor:
        """Map the first layer [*, W] to log q [*, n, A]."""
        logits = self.out(F.relu(self.second(F.relu(entered))))
        return logits.unflatten(-1, (self.n_agents, self.n_actions)).log_softmax(-1)


def group_loss(model: GroupModel, context: Tensor, actions: Tensor, group: Tensor, alive: Tensor) -> Tensor:
    """Return the cross-entropy (0-d) of the living others' actions, with and without the group's: context [R, n, C],
    actions long [R, n], group and alive bool [R, n]."""
    inside, others = group & alive, ~group & alive
    entered = model.enter(context, inside)
    log_q = torch.stack([model(model.act(entered, actions, inside)), model(entered)])  # [2, R, n, A]
    taken = log_q.gather(3, actions[None, ..., None].expand(2, -1, -1, 1)).squeeze(3)
    return -(taken * others).sum() / (2 * others.sum()).clamp(min=1)


@torch.no_grad()
def dependence(
    model: GroupModel,
    context: Tensor,
    candidates: Tensor,
    intended: Tensor,
    group: Tensor,
    alive: Tensor,
    score: str,
) -> Tensor:
    """Return the information of the group's actions about the others' [R, K], for joint actions ``candidates`` long
    [R, K, n].

    context [R, n, C], intended long [R, n], group and alive bool [R, n]; the dead count on neither side. kl: sum over
    the others of KL(q(.|a, c) || q(.|c)); pmi: sum of log q(intended|a, c) - log q(intended|c).
    """
    inside, others = group & alive, ~group & alive
    entered = model.enter(context, inside)
    without = model(entered)[:, None]  # [R, 1, n, A]
    given = model(model.act(entered[:, None], candidates, inside[:, None]))  # [R, K, n, A]
    if score == "kl":
        information = (given.exp() * (given - without)).sum(-1)
    else:
        at = intended[:, None, :, None].expand(*given.shape[:3], 1)
        information = (given - without).gather(3, at).squeeze(3)
    return (information * others[:, None]).sum(-1)
