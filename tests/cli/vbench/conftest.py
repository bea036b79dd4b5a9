"""The stand-in for VBench, shared with the tests of its metric."""

from tests.evaluation.vbench.conftest import fake as fake
from tests.evaluation.vbench.conftest import files as files
from tests.evaluation.vbench.conftest import trained as trained
