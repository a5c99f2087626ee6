"""Two players with one loss each: a frozen use of the one inside the loss of the other (L3, L4, L8)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import frostline.torch as ft
from only_torch.bits import contents, gradients, moved, without_gradient

GENERATOR = {"make.0.weight", "make.0.bias", "make.2.weight", "make.2.bias"}
DISCRIMINATOR = {"judge.0.weight", "judge.0.bias", "judge.3.weight", "judge.3.bias"}
STATISTICS = {"judge.1.running_mean", "judge.1.running_var", "judge.1.num_batches_tracked"}
NORM = {"judge.1.weight", "judge.1.bias"}
NOISE = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
REAL = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))


class Gan(nn.Module):
    """The discriminator has batch norm, so that training the generator could move its statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
        self.judge = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.LeakyReLU(), nn.Linear(8, 1))
        self.fixed_judge = [ft.Frozen(self.judge)]  # in a list: the model has one discriminator

    def loss_of_generator(self) -> Tensor:
        return nn.functional.softplus(-self.fixed_judge[0](self.make(NOISE))).mean()

    def loss_of_discriminator(self) -> Tensor:
        fake = self.judge(self.make(NOISE).detach())
        return nn.functional.softplus(fake).mean() + nn.functional.softplus(-self.judge(REAL)).mean()


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """One that gets everything, and moves frozen parts if it can: decay acts on zero gradients too."""
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)


def stepped(model: nn.Module, loss: Callable[[], Tensor], step: torch.optim.Optimizer) -> set[str]:
    """Returns the names of what moves in one step, forward included."""
    before = contents(model)
    step.zero_grad()
    loss().backward()
    step.step()
    return moved(before, model)


def test_the_generator_alone_moves_with_its_loss() -> None:
    gan = Gan()
    assert stepped(gan, gan.loss_of_generator, optimizer(gan)) == GENERATOR


def test_the_discriminator_alone_moves_with_its_loss() -> None:
    gan = Gan()
    assert stepped(gan, gan.loss_of_discriminator, optimizer(gan)) == DISCRIMINATOR | NORM | STATISTICS


def test_without_a_frozen_use_the_discriminator_moves_with_the_loss_of_the_generator() -> None:
    """Negative control."""
    gan = Gan()
    gan.fixed_judge = [gan.judge]
    assert stepped(gan, gan.loss_of_generator, optimizer(gan)) == GENERATOR | DISCRIMINATOR | NORM | STATISTICS


def test_two_optimizers_over_everything_by_turns() -> None:
    gan = Gan()
    one, other = optimizer(gan), optimizer(gan)
    for _ in range(5):
        assert stepped(gan, gan.loss_of_discriminator, other) == DISCRIMINATOR | NORM | STATISTICS
        assert stepped(gan, gan.loss_of_generator, one) == GENERATOR


def test_both_losses_in_one_backward() -> None:
    """Each player gets the gradient of its own loss, as if there were two backward calls."""
    gan, by_turns = Gan(), Gan()
    (gan.loss_of_generator() + gan.loss_of_discriminator()).backward()
    by_turns.loss_of_generator().backward()
    by_turns.loss_of_discriminator().backward()
    assert gradients(gan) == gradients(by_turns)


def test_the_generator_learns_against_a_discriminator_that_moves() -> None:
    """L6: the frozen use is not the discriminator as it was at the start."""
    gan = Gan()
    before = gan.loss_of_generator().item()
    stepped(gan, gan.loss_of_discriminator, optimizer(gan))
    assert gan.loss_of_generator().item() != before


def test_a_discriminator_with_spectral_norm() -> None:
    """Power iterations happen in the discriminator's own step only."""
    torch.manual_seed(0)
    make, judge = nn.Linear(3, 4), parametrizations.spectral_norm(nn.Linear(4, 3))
    players, fixed = nn.ModuleList([make, judge]), ft.Frozen(judge)
    vectors = {"1.parametrizations.weight.0._u", "1.parametrizations.weight.0._v"}
    step = optimizer(players)
    assert stepped(players, lambda: fixed(make(NOISE)).mean(), step) == {"0.weight", "0.bias"}
    moved_by_judge = stepped(players, lambda: judge(make(NOISE).detach()).square().mean(), step)
    assert moved_by_judge == {"1.bias", "1.parametrizations.weight.original"} | vectors


class ActorCritic(nn.Module):
    """The actor climbs the value that the critic gives to its actions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.actor = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        self.critic = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def loss_of_actor(self, state: Tensor) -> Tensor:
        return -ft.frozen_call(self.critic, torch.cat([state, self.actor(state)], dim=1)).mean()

    def loss_of_critic(self, state: Tensor) -> Tensor:
        action = self.actor(state).detach()
        return (self.critic(torch.cat([state, action], dim=1)) - 1).square().mean()


ACTOR = {"actor.0.weight", "actor.0.bias", "actor.2.weight", "actor.2.bias"}
CRITIC = {"critic.0.weight", "critic.0.bias", "critic.3.weight", "critic.3.bias"}


def test_actor_and_critic_by_turns() -> None:
    model = ActorCritic()
    one, other = optimizer(model), optimizer(model)
    for _ in range(5):
        assert stepped(model, lambda: model.loss_of_actor(NOISE), one) == ACTOR
        assert stepped(model, lambda: model.loss_of_critic(NOISE), other) == CRITIC


def test_actor_and_critic_in_one_loss() -> None:
    model = ActorCritic()
    model.loss_of_actor(NOISE).backward()
    assert without_gradient(model.critic.parameters())
    model.loss_of_critic(NOISE).backward()
    assert not any(p.grad is None for p in model.parameters())


def test_dropout_of_the_critic_is_off_for_the_actor() -> None:
    model = ActorCritic().train()
    assert model.loss_of_actor(NOISE).item() == model.loss_of_actor(NOISE).item()
    assert model.loss_of_critic(NOISE).item() != model.loss_of_critic(NOISE).item()


def test_frozen_call_leaves_no_name_behind() -> None:
    """L5: the kept frozen use is neither in the state dict nor among the modules of the model."""
    model, untouched = ActorCritic(), ActorCritic()
    model.loss_of_actor(NOISE)
    assert list(model.state_dict()) == list(untouched.state_dict())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in untouched.named_modules()]


class Perceptual(nn.Module):
    """Compares features of a fixed network that is part of the model: the loss of style transfer."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = ft.Frozen(features)
        self.paint = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.features(self.paint(x)) - self.features(x)).square().mean()


def test_perceptual_loss_trains_the_painter_alone() -> None:
    model = Perceptual(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)))
    assert stepped(model, lambda: model.train()(REAL), optimizer(model)) == {"paint.weight", "paint.bias"}
