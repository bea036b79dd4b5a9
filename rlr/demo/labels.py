"""What the measurements are called in the table, the figures and the page."""

LABELS = {
    "reward": "reward",
    "all": "exact check: all correct",
    "novel": "… of colour–shape pairs never trained on",
    "count": "… count",
    "colour": "… colours",
    "shape": "… shapes",
    "binding": "… colour with shape",
    "place": "… position or relation",
    "background": "… background",
    "diversity": "diversity",
}
"""Every measurement's label, in the order of the table."""

NUMBERS = ("reward", "diversity")
"""Measurements that are not shares, and so not shown in per cent."""


def show(name: str, value: float, signed: bool = False) -> str:
    """Returns a measurement as text: shares in per cent, a difference with its sign."""
    sign = "+" if signed else ""
    text = f"{value:{sign}.3f}" if name in NUMBERS else f"{100 * value:{sign}.1f}{' ' if signed else ' %'}"
    return text.strip().replace("-", "−")
