from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain, Trajectory
from rlr.models import Frozen, Guidance, LoRA, StableDiffusion, Trainable
from rlr.samplers import DDIM

PROMPTS = ["a red circle", "two blue square on the background"]
Folder = Callable[..., Path]


def awaken(model: StableDiffusion) -> None:
    """Gives a LoRA weights that matter: its own start is no addition at all."""
    generator = torch.Generator().manual_seed(11)
    for weight in model.trainable.values():
        weight.data += 0.2 * torch.randn(weight.shape, generator=generator)


def build(folder: Path, trainable: Trainable | None = None, checkpoint: bool = False, **options: object) -> Chain:
    model = StableDiffusion(str(folder), trainable, **options)
    awaken(model)
    return Chain(Guidance(model, 3.0), DDIM(6, eta=1.0), checkpoint)


def gradients(chain: Chain, trajectory: Trajectory, start: int, stop: int) -> list[Tensor]:
    """Returns the gradients of both readings of a replayed segment, added up."""
    transition = chain.replay(trajectory, start, stop)
    path = transition.sample(trajectory.noises[stop]).square().sum()
    loss = path + transition.log_prob(trajectory.states[stop]).sum()
    return list(torch.autograd.grad(loss, list(chain.model.trainable.values())))


@contextmanager
def counted() -> Iterator[list[int]]:
    """Counts the numbers that the graph keeps."""
    kept = [0]

    def pack(tensor: Tensor) -> Tensor:
        kept[0] += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


@pytest.mark.parametrize("trainable", [LoRA(), Frozen()], ids=["lora", "base"])
@pytest.mark.parametrize("checkpoint", [False, True], ids=["plain", "checkpoint"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["whole", "blocks"])
def test_replay_returns_the_recorded_states_to_the_bit(
    random_sd: Folder, trainable: Trainable, checkpoint: bool, checkpointing: bool
) -> None:
    chain = build(random_sd(), trainable, checkpoint, checkpointing=checkpointing)
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    for start, stop in ((6, 0), (6, 5), (4, 2), (1, 0)):
        x = chain.replay(trajectory, start, stop).sample(trajectory.noises[stop])
        assert torch.equal(x, trajectory.states[stop])


def test_replay_with_other_weights_does_not(random_sd: Folder) -> None:
    chain = build(random_sd())
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    awaken(chain.model.model)
    assert not torch.equal(chain.replay(trajectory, 4, 2).sample(trajectory.noises[2]), trajectory.states[2])


def test_checkpoints_leave_the_gradients_as_they_are(random_sd: Folder) -> None:
    plain, steps = build(random_sd()), build(random_sd(), checkpoint=True)
    blocks = build(random_sd(), checkpoint=True, checkpointing=True)
    trajectory = plain.sample(plain.encode(PROMPTS), plain.draw([1, 2]))
    expected = gradients(plain, trajectory, 5, 1)
    assert min(g.abs().max() for g in expected) > 0
    for chain in (steps, blocks):
        for g, e in zip(gradients(chain, trajectory, 5, 1), expected, strict=True):
            torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-6 * e.abs().max().item())


def test_checkpoints_keep_less(random_sd: Folder) -> None:
    kept = {}
    for name, chain in {
        "plain": build(random_sd()),
        "blocks": build(random_sd(), checkpointing=True),
        "steps": build(random_sd(), checkpoint=True),
    }.items():
        trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
        with counted() as count:
            chain.replay(trajectory, 4, 1)
        kept[name] = count[0]
    assert kept["steps"] < kept["blocks"] / 2 < kept["plain"] / 4


def test_sampling_keeps_no_graph(random_sd: Folder) -> None:
    chain = build(random_sd(), checkpointing=True)
    with counted() as count:
        trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    assert count == [0]
    assert not trajectory.states.requires_grad


def test_the_global_generator_is_left_alone(random_sd: Folder) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    chain = build(random_sd(), LoRA(rank=2, seed=5), True, checkpointing=True, vae_slicing=True)
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    gradients(chain, trajectory, 3, 1)
    chain.model.decode(trajectory.states[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_draw_gives_each_sample_its_own_seed(random_sd: Folder) -> None:
    chain = build(random_sd())
    noises = chain.draw([7, 8, 7])
    assert noises.shape == (7, 3, 4, 8, 8)
    assert noises.dtype == torch.float32
    assert torch.equal(noises[:, 0], noises[:, 2])
    assert torch.equal(noises[:, 1], chain.draw([8])[:, 0])
    assert not torch.equal(noises[:, 0], noises[:, 1])


def test_a_sample_does_not_depend_on_its_batch(random_sd: Folder) -> None:
    chain = build(random_sd(prediction="v_prediction"))
    alone = chain.sample(chain.encode(PROMPTS[:1]), chain.draw([7]))
    among = chain.sample(chain.encode([PROMPTS[1], "the green", PROMPTS[0], ""]), chain.draw([5, 6, 7, 8]))
    pictures = [chain.model.decode(t.states[0]) for t in (alone, among)]
    torch.testing.assert_close(pictures[0][0], pictures[1][2], rtol=0, atol=1e-5)
    assert (pictures[0][0] - pictures[1][1]).abs().max() > 0.1


def test_the_segment_starts_from_a_constant(random_sd: Folder) -> None:
    """Steps before the segment get no gradient: adding them up by hand gives the gradient of the whole chain."""
    chain = build(random_sd())
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    weights = list(chain.model.trainable.values())
    x = trajectory.states[3].clone().requires_grad_()
    onward = Trajectory(trajectory.condition, trajectory.states.clone(), trajectory.noises)
    onward.states[3] = x
    final = chain.replay(onward, 3, 0).sample(trajectory.noises[0]).square().sum()
    *late, adjoint = torch.autograd.grad(final, [*weights, x])
    early = torch.autograd.grad(chain.replay(trajectory, 5, 3).sample(trajectory.noises[3]), weights, adjoint)
    whole = torch.autograd.grad(chain.replay(trajectory, 5, 0).sample(trajectory.noises[0]).square().sum(), weights)
    for one, two, both in zip(early, late, whole, strict=True):
        torch.testing.assert_close(one + two, both, rtol=1e-3, atol=1e-4 * both.abs().max().item())


def test_steps_are_surrounded_from_the_first_to_the_last(random_sd: Folder) -> None:
    chain, entered, left = build(random_sd()), [], []

    @contextmanager
    def within(t: int) -> Iterator[None]:
        entered.append(t)
        yield
        left.append(t)

    chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]), within=within)
    assert entered == left == [6, 5, 4, 3, 2, 1]


def test_look_ahead_is_differentiable_and_ends_in_the_state_itself(random_sd: Folder) -> None:
    chain = build(random_sd(), Frozen())
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    assert torch.equal(chain.look_ahead(trajectory.states[0], 0, trajectory.condition), trajectory.states[0])
    x = trajectory.states[2].clone().requires_grad_()
    estimate = chain.look_ahead(x, 2, trajectory.condition)
    assert torch.equal(estimate, chain.denoise(trajectory.states[2], 2, trajectory.condition))
    (gradient,) = torch.autograd.grad(estimate.sum(), x)
    assert gradient.abs().min(dim=0).values.max() > 0
