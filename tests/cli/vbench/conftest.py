from tests.evaluation.vbench.conftest import fake, files, trained  # noqa: F401
