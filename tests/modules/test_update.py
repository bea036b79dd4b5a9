"""An update that fails on another process is skipped here as well."""

import pytest
import torch

from rlr import distributed
from rlr.estimators import DDPO, Estimator, HalfOrder, replay
from rlr.modules import update
from tests.modules.toy import Replay, align, prompts, run, weights


@pytest.mark.parametrize("estimator", [DDPO(2), HalfOrder(), Replay()], ids=lambda one: type(one).__name__)
def test_a_round_whose_rewards_are_at_fault_on_another_process_is_skipped(
    monkeypatch: pytest.MonkeyPatch, estimator: Estimator
) -> None:
    """DDPO has no terms then, although all that this process knows of is finite."""

    def elsewhere(flag: bool) -> bool:
        return flag or module.progress.batches <= 2

    module = align(estimator=estimator, max_bad_steps=3)
    assert distributed.any_rank is update.any_rank is replay.any_rank
    for user in (replay, update):
        monkeypatch.setattr(user, "any_rank", elsewhere)
    before = weights(module).clone()
    with pytest.warns(UserWarning, match="of another process is not finite; this update is skipped") as stated:
        run(module, prompts(), steps=2)
    assert sum("skipped" in str(one.message) for one in stated) == 2
    assert module.progress.batches >= 3
    assert module.progress.updates == 2
    assert not torch.equal(weights(module), before)
