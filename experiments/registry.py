"""The experiments that the command line knows."""

from experiments.base import Experiment
from experiments.cost import Cost
from experiments.figure3 import Figure3
from experiments.figure4 import Figure4
from experiments.table1 import Table1
from experiments.table2 import Table2
from experiments.table4 import Table4
from experiments.table5 import Table5
from experiments.table6 import Table6
from experiments.tuning import Tuning

EXPERIMENTS: tuple[type[Experiment], ...] = (Table1, Cost, Tuning, Table2, Figure3, Figure4, Table4, Table5, Table6)
