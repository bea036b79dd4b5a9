"""The experiments of the command line."""

from experiments.base import Experiment
from experiments.board.board import BoardA, BoardB, BoardFlow, BoardLong
from experiments.board.ceiling import CeilingExperiment
from experiments.board.finals import BoardFinalsA, BoardFinalsB, BoardFinalsFlow
from experiments.board.tuning import BoardTuningA, BoardTuningB, BoardTuningFlow
from experiments.board.update_seconds import UpdateSecondsA, UpdateSecondsB
from experiments.cost.slopes import Slopes
from experiments.paper.figure3 import Figure3
from experiments.paper.figure4 import Figure4
from experiments.paper.table1 import Table1
from experiments.paper.table2 import Table2
from experiments.paper.table3 import Table3
from experiments.paper.table4 import Table4
from experiments.paper.table5 import Table5
from experiments.paper.table6 import Table6
from experiments.paper.tails import Tails
from experiments.paper.tuning_video import TuningVideo

EXPERIMENTS: tuple[type[Experiment], ...] = (
    Table1,
    TuningVideo,
    Table2,
    Table3,
    Figure3,
    Figure4,
    Table4,
    Table5,
    Table6,
    Tails,
    Slopes,
    BoardTuningA,
    BoardFinalsA,
    BoardA,
    BoardTuningB,
    BoardFinalsB,
    BoardB,
    BoardTuningFlow,
    BoardFinalsFlow,
    BoardFlow,
    BoardLong,
    UpdateSecondsA,
    UpdateSecondsB,
    CeilingExperiment,
)
