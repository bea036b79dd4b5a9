"""The experiments of the command line."""

from experiments.base import Experiment
from experiments.costs import Cost
from experiments.figure3 import Figure3
from experiments.figure4 import Figure4
from experiments.table1 import Table1
from experiments.table2 import Table2
from experiments.table3 import Table3
from experiments.table4 import Table4
from experiments.table5 import Table5
from experiments.table6 import Table6
from experiments.tails import Tails
from experiments.tuning import Tuning
from experiments.tuning_video import TuningVideo

EXPERIMENTS: tuple[type[Experiment], ...] = (
    Table1,
    Cost,
    Tuning,
    TuningVideo,
    Table2,
    Table3,
    Figure3,
    Figure4,
    Table4,
    Table5,
    Table6,
    Tails,
)
