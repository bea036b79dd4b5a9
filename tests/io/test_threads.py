"""Threads that wait sleep soon, unless the user has decided how they wait."""

import os
import subprocess
import sys
from pathlib import Path

from rlr.io.threads import SPINS, wait_briefly

ROOT = Path(__file__).parents[2]


def test_the_users_own_choice_stands():
    environment: dict[str, str] = {}
    wait_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": SPINS}
    for chosen in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        environment = dict(chosen)
        wait_briefly(environment)
        assert environment == chosen


def test_it_is_set_before_torch_is_imported():
    program = "import sys, train\nsys.argv = ['train.py', '--help']\ntry: train.main()\nexcept SystemExit: pass\n"
    program += "import os\nassert 'torch' not in sys.modules\nprint(os.environ['GOMP_SPINCOUNT'])"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-1] == SPINS, done.stderr
