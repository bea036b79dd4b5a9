"""Text recognition by RapidOCR: PP-OCR's networks in ONNX, which are in its package, so that nothing is downloaded."""

from collections.abc import Sequence
from typing import Any

from rlr.rewards.pixels import Image

LEVEL = "critical"
"""What RapidOCR logs at least: images without text would otherwise fill the log."""


class RapidText:
    """Reads the text in images.

    Args:
        threads: The number of threads; None for all cores.
        confidence: The least confidence, in [0, 1], of a line that counts; 0.5 is also PaddleOCR's.

    Raises:
        ImportError: If ``rapidocr`` or ``onnxruntime`` is not installed.

    References:
        | https://github.com/RapidAI/RapidOCR
    """

    def __init__(self, threads: int | None = None, confidence: float = 0.5) -> None:
        self.confidence = confidence
        try:
            import onnxruntime
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ImportError(
                "RapidText needs the packages rapidocr and onnxruntime; install them by `pip install 'rlr[ocr]'`, or pass "
                "another engine to OCR"
            ) from error
        del onnxruntime
        count = -1 if threads is None else threads
        pool = {f"EngineConfig.onnxruntime.{scope}_op_num_threads": count for scope in ("intra", "inter")}
        self.reader = RapidOCR(params={"Global.log_level": LEVEL, "Global.text_score": confidence, **pool})

    def __call__(self, images: Sequence[Image]) -> list[str]:
        """Returns the text in each image, its lines joined without a separator; "" where there is no text."""
        return ["".join(self._lines(image)) for image in images]

    def _lines(self, image: Image) -> Sequence[str]:
        # as OpenCV has them: blue first
        found: Any = self.reader(image[..., ::-1])
        return found.txts or ()
