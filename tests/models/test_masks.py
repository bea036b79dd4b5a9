"""What a mask covers changes nothing: a prompt gives the same estimate, sample and gradient in every batch."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.models import Condition, DiffusionModel, Guidance, OnDemand, Size, StagedPrompt
from rlr.models.text import PromptEncoder, Row
from rlr.samplers import FlowSDE
from rlr.schedules import RectifiedFlow

PROMPTS = ["one", "a red circle on blue", "two hearts"]
STAGED = StagedPrompt("three of four", ["three words here now", "two"])


class Words(PromptEncoder):
    """Embeds each word; the sequence is as long as the prompt, or padded to ``fixed`` with large numbers."""

    def __init__(self, fixed: int | None, folder: str | None = None) -> None:
        super().__init__(partial(nn.Embedding, 64, 8, dtype=torch.float64), 32, "words", OnDemand(folder=folder))
        self.fixed = fixed

    def count(self, prompt: str) -> int:
        return len(prompt.split())

    def embed(self, encoder: nn.Embedding, prompt: str, device: torch.device) -> Row:
        words = torch.tensor([sum(map(ord, word)) % 64 for word in prompt.split() or [""]], device=device)
        text = torch.cos(words[:, None] * torch.arange(1.0, 9.0, dtype=torch.float64))
        if self.fixed is None:
            return {"text": text}
        padding = text.new_full((self.fixed - len(text), 8), 7.0)
        return {"text": torch.cat([text, padding]), "text_mask": torch.arange(self.fixed) < len(text)}


class Reader(DiffusionModel):
    """A small random PixArt, a transformer of diffusers that reads masks."""

    def __init__(self, text: PromptEncoder, masked: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size, self.text, self.masked = Size(4, 4), text, masked
        sizes = {"num_attention_heads": 2, "attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": 8}
        network = PixArtTransformer2DModel(
            **sizes, in_channels=2, out_channels=2, num_layers=1, sample_size=4, use_additional_conditions=False
        )
        self.transformer = network.double()
        for weight in self.transformer.parameters():
            # the library's own start is 0 in the last layer
            nn.init.normal_(weight, std=0.3)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (2, size.height, size.width)

    def schedule(self, size: Size) -> RectifiedFlow:
        return RectifiedFlow()

    def encode(self, prompts: Sequence[str]) -> Condition:
        return self.text(prompts)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        output: Tensor = self.transformer(
            x.double(),
            encoder_hidden_states=condition.tensors["text"],
            encoder_attention_mask=condition.mask("text") if self.masked else None,
            timestep=torch.full((len(x),), time, dtype=torch.float64),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return output.to(x.dtype)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return x.sigmoid()


Wrap = Callable[[DiffusionModel], DiffusionModel]
WRAPS: dict[str, Wrap] = {
    "plain": lambda model: model,
    "guided": partial(Guidance, scale=3.0, negative="a very long prompt to lead away from"),
    "one by one": partial(Guidance, scale=3.0, negative="bad", batched=False),
}


def latents(number: int) -> Tensor:
    return torch.randn(number, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def far(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


# ---------------------------------------------------------------- estimates


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("fixed", [None, 9], ids=["ragged", "fixed"])
def test_padding_changes_no_estimate(wrap: Wrap, fixed: int | None) -> None:
    model, alone, x = wrap(Reader(Words(fixed))), wrap(Reader(Words(None))), latents(3)
    found = model.denoise(x, 0.5, model.encode(PROMPTS))
    for k, prompt in enumerate(PROMPTS):
        expected = alone.denoise(x[k : k + 1], 0.5, alone.encode([prompt]))
        torch.testing.assert_close(found[k : k + 1], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fixed", [None, 9], ids=["ragged", "fixed"])
def test_it_would_without_the_mask(fixed: int | None) -> None:
    model, blind, x = Reader(Words(fixed)), Reader(Words(fixed), masked=False), latents(3)
    condition = model.encode(PROMPTS)
    assert far(model.denoise(x, 0.5, condition)[0], blind.denoise(x, 0.5, condition)[0]) > 1e-3


def test_guidance_is_its_formula_on_two_sequences_of_unequal_length() -> None:
    model, x = Reader(Words(None)), latents(1)
    positive, negative = (model.denoise(x, 0.5, model.encode([p])) for p in (PROMPTS[0], PROMPTS[1]))
    for batched in (True, False):
        guided = Guidance(model, 3.0, PROMPTS[1], batched)
        found = guided.denoise(x, 0.5, guided.encode([PROMPTS[0]]))
        torch.testing.assert_close(found, negative + 3 * (positive - negative), rtol=0, atol=1e-12)


# ---------------------------------------------------------------- what is done with conditions


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("prompts", [PROMPTS, [PROMPTS[0], STAGED, PROMPTS[1]]], ids=["prompts", "staged"])
def test_samples_and_gradients_are_the_same_in_a_batch_in_joined_batches_and_alone(
    wrap: Wrap, prompts: list[str]
) -> None:
    chain = Chain(wrap(Reader(Words(None))), FlowSDE(4))
    noises = chain.draw([5, 6, 7]).double()
    together = chain.sample(chain.encode(prompts), noises)
    conditions = [chain.encode(prompts[:1]), chain.encode(prompts[1:])]
    joined = chain.sample(chain.join(conditions), noises)
    rows = torch.tensor([2, 0])
    selected = chain.sample(together.select(rows).condition, noises[:, rows])
    torch.testing.assert_close(joined.states, together.states, rtol=0, atol=1e-10)
    torch.testing.assert_close(selected.states, together.states[:, rows], rtol=0, atol=1e-10)
    gradient = gradients(chain, together)
    each = [chain.sample(chain.encode(prompts[k : k + 1]), noises[:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(torch.cat([t.states for t in each], 1), together.states, rtol=0, atol=1e-10)
    torch.testing.assert_close(sum(gradients(chain, t) for t in each), gradient, rtol=1e-8, atol=1e-8)


def gradients(chain: Chain, trajectory) -> Tensor:
    """Returns the gradient of the sum of all final latents, through the last two steps."""
    loss = chain.replay(trajectory, 2, 0).sample(trajectory.noises[0]).sum()
    weights = list(chain.model.trainable.values())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def test_embeddings_in_a_folder_keep_their_masks(tmp_path) -> None:
    first, again = (Words(9, str(tmp_path))(PROMPTS) for _ in range(2))
    mask = again.mask("text")
    assert mask is not None
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [1, 5, 2]
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in ("text", "text_mask"))


def test_there_is_no_mask_where_nothing_is_padded() -> None:
    assert Words(None)(["a b", "c d"]).mask("text") is None
    mask = Condition.join([Words(None)(["a b"]), Words(None)(["a", "b"])]).mask("text")
    assert mask is not None
    assert mask.tolist() == [[True, True], [True, False], [True, False]]


def test_tensors_that_differ_in_more_than_a_length_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"condition 'text'.*\(1, 2, 8\), \(1, 3, 9\)"):
        Condition.join([Condition({"text": torch.zeros(1, 2, 8)}), Condition({"text": torch.zeros(1, 3, 9)})])
