from tests.modules.toy import AffineModel


class FrozenModel(AffineModel):
    """The toy without a weight to train."""

    def __init__(self) -> None:
        super().__init__(trained=False)
