r"""CogVideoX, text to video, from folders in diffusers' layout, local or on the hub."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor

from rlr.io.weights import freeze
from rlr.models.adapters import ATTENTION, LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.discrete_scheduler import discrete_schedule
from rlr.models.folder import ModelFolder
from rlr.models.latent import (
    VideoLatentDiffusion,
    decode_in_chunks,
    decode_pixels,
    latent_frames,
    latent_sides,
    load_autoencoder,
)
from rlr.models.placement import TextPlacement
from rlr.models.prediction import slope
from rlr.models.t5_text import T5Prompts
from rlr.schedules import Schedule


class CogVideoX(VideoLatentDiffusion):
    r"""A diffusion of videos with a transformer of joint attentions to prompt and video, T5, and an autoencoder causal in time.

    The network predicts :math:`v = \alpha \epsilon - \sigma x_0` at integer times. The schedule is scaled linear, with a
    signal-to-noise ratio that is shifted and then made zero at the last time, as the folder's scheduler states. ``DDIM`` with
    ``eta: 0`` and a number of steps that divides 1000 samples as ``CogVideoXPipeline`` does with ``CogVideoXDDIMScheduler``,
    which for other numbers computes with levels between its times. Latents have shape :math:`(C, f, h, w)` with
    :math:`f = (F - 1) / k + 1` for :math:`F` frames and a stride :math:`k` in time, 4 in the published models. CogVideoX 1.5
    puts a latent frame before the video that makes :math:`f` even, and drops it before decoding.

    References:
        | CogVideoX: Text-to-Video Diffusion Models with an Expert Transformer (Yang et al., 2024)
        | https://arxiv.org/abs/2408.06072

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, or its name on
            the hub: ``THUDM/CogVideoX-2b``, ``THUDM/CogVideoX-5b``, ``THUDM/CogVideoX1.5-5B``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=64, alpha=128)`` on the projections
            of all attentions.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        size: Height and width in pixels, multiples of 16.
        frames: The number :math:`F` of frames, a multiple of :math:`2 k` plus 1: the autoencoder decodes two latent frames at once.
        fps: The frames a second of the samples' files, 16 for CogVideoX 1.5; not an input of the network.
        checkpointing: Whether the transformer's blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether videos are decoded one by one, and decoded again in the backward pass, so that memory is that of
            one video.
        vae_tiling: Whether large videos are decoded in overlapping tiles, which changes pixels near their seams.
        text: Where the text encoder and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model, or the size does not fit.
    """

    kind = "a CogVideoX"
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    standard = Size(480, 720, 49, 8.0)

    transformer: Any

    def __init__(
        self,
        path: str = "THUDM/CogVideoX-2b",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        size: tuple[int, int] = (480, 720),
        frames: int = 49,
        fps: float = 8.0,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        text: TextPlacement | None = None,
    ) -> None:
        folder = ModelFolder(path, self.kind, self.parts, revision)
        self._build(folder, trainable, getattr(torch, dtype), text)
        self.set_size(Size(*size, frames, fps))
        self.save_memory(checkpointing, vae_slicing, vae_tiling)

    def _build(
        self,
        folder: ModelFolder,
        trainable: Trainable | None,
        number: torch.dtype,
        text: TextPlacement | None = None,
    ) -> None:
        """Reads the parts of a folder."""
        scheduler = folder.config(CogVideoXDDIMScheduler, "scheduler")
        noise_schedule, prediction = discrete_schedule(scheduler, CogVideoXDDIMScheduler)
        transformer = folder.network(CogVideoXTransformer3DModel, "transformer", torch_dtype=number)
        # diffusers leaves the table of positions in float64, and casts it in every step
        transformer.patch_embed.to(number)
        config = transformer.config
        _check(config, folder.path)
        vae = load_autoencoder(folder, number, config.in_channels, AutoencoderKLCogVideoX)
        prompts = T5Prompts(folder, number, config.max_text_seq_length, placement=text)
        super().__init__(prompts, vae, trainable or LoRA(64, 128), {"transformer": transformer}, ATTENTION)
        self.folder, self.scheduler = folder, scheduler
        self.noise_schedule, self.prediction = noise_schedule, prediction

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        config = self.transformer.config
        frames = latent_frames(size, self._stride, "CogVideoX", 2 * self._stride)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = latent_sides(size, factor * config.patch_size, "a video of this CogVideoX")
        rows, columns = self._trained
        if config.patch_size_t and (height > rows or width > columns):
            raise ValueError(
                f"size: this CogVideoX has positions for {rows} x {columns} tokens, and {size.height} x {size.width} pixels need "
                f"{height} x {width}; choose a smaller size"
            )
        padded = frames + -frames % (config.patch_size_t or 1)
        return (config.in_channels, padded, height * config.patch_size, width * config.patch_size)

    def schedule(self, size: Size) -> Schedule:
        return self.noise_schedule

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        output = self.transformer(
            hidden_states=self.for_pipeline(x.to(self.dtype)),
            encoder_hidden_states=condition.tensors["text"].to(self.dtype),
            timestep=torch.full((len(x),), int(time), device=x.device),
            image_rotary_emb=self._rotations(x) if self.transformer.config.use_rotary_positional_embeddings else None,
            return_dict=False,
        )[0]
        return self.prediction(self.for_pipeline(output).to(x.dtype), x, *self.noise_schedule.levels(time))

    def skip(self, time: float) -> float:
        return slope(self.prediction, *self.noise_schedule.levels(time))

    def _rotations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines of the positions of all tokens; those of 1.5 are not scaled to the size of training."""
        config = self.transformer.config
        frames, grid = x.shape[2], tuple(side // config.patch_size for side in x.shape[-2:])
        options: dict[str, Any] = {"temporal_size": frames, "crops_coords": None}
        if config.patch_size_t is None:
            options["crops_coords"] = get_resize_crop_region_for_grid(grid, *self._trained[::-1])
        else:
            options |= {"temporal_size": frames // config.patch_size_t, "grid_type": "slice", "max_size": self._trained}
        rotations: tuple[Tensor, Tensor] = get_3d_rotary_pos_embed(
            config.attention_head_dim, grid_size=grid, device=x.device, **options
        )
        return rotations

    @property
    def _trained(self) -> tuple[int, int]:
        """The rows and columns of tokens of the samples of training."""
        config = self.transformer.config
        return config.sample_height // config.patch_size, config.sample_width // config.patch_size

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels of the chosen frames, with shape :math:`(B, k, 3, H, W)`.

        The autoencoder decodes three latent frames and then two at once; those after the last chosen frame are left out.
        """
        # an even number of latent frames has one before the video
        latents, stride = x[:, :, 1 - x.shape[2] % 2 :], self._stride
        chosen = range(stride * (latents.shape[2] - 1) + 1) if frames is None else list(frames)
        last = -(-max(chosen, default=0) // stride)
        prefix = latents[:, :, : max(last + last % 2, 2) + 1]
        pixels = decode_in_chunks(partial(decode_pixels, self.vae), prefix, 1 if self.vae_slicing else None)
        return pixels.transpose(1, 2)[:, list(chosen)]

    @property
    def _stride(self) -> int:
        stride: int = self.vae.config.temporal_compression_ratio
        return stride

    def for_pipeline(self, x: Tensor) -> Tensor:
        r"""Returns latents with shape :math:`(B, f, C, h, w)`, and those of that shape with shape :math:`(B, C, f, h, w)`."""
        return x.transpose(1, 2)

    def fresh_network(self) -> Any:
        network: Any = freeze(self.folder.network(CogVideoXTransformer3DModel, "transformer", torch_dtype=self.dtype))
        return network.to(self.device)

    def pipeline_class(self) -> Any:
        return CogVideoXPipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        return CogVideoXPipeline(
            tokenizer=self.text.tokenizer,
            text_encoder=encoder,
            vae=self.vae,
            transformer=network,
            scheduler=CogVideoXDDIMScheduler.from_config(self.scheduler),
        )

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds"}, num_frames=self.size.frames)


def _check(config: Any, path: str) -> None:
    if (
        config.in_channels != config.out_channels
        or config.ofs_embed_dim is not None
        or config.patch_size_t not in (None, 2)
    ):
        raise ValueError(
            f"{path}/transformer/config.json: expected a model of text alone, with as many input as output channels and patches "
            f"of 1 or 2 latent frames, found {config.in_channels} and {config.out_channels} channels and patch_size_t: "
            f"{config.patch_size_t}; take a text-to-video model"
        )
