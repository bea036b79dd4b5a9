"""Measurements as text."""

NUMBERS = ("reward", "diversity")
"""Measurements that are not shares, and so not shown in per cent."""


def show(name: str, value: float, signed: bool = False) -> str:
    """Returns a measurement as text: shares in per cent, a difference with its sign."""
    sign = "+" if signed else ""
    text = f"{value:{sign}.3f}" if name in NUMBERS else f"{100 * value:{sign}.1f}{' ' if signed else ' %'}"
    return text.strip().replace("-", "−")
