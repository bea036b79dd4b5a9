"""VBench as its own documentation calls it: ``python -m tests.evaluation.vbench.direct VIDEOS INFO MODE OUT DIMENSION …``.

The environment says where weights are. Nothing here is of the package that is tested.
"""

import sys

from vbench import VBench

videos, info, mode, out, *dimensions = sys.argv[1:]
VBench("cpu", info, out).evaluate(videos_path=videos, name="direct", dimension_list=dimensions, mode=mode, local=True)
