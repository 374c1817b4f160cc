"""Training binary networks: images in memory, epochs, checkpoints, data parallel, and a report.

A few functions around plain PyTorch, no framework: `fit` trains, `compile_and_check` makes C of
the result and holds it against the float model, `run` does both for a script's command line.
`examples/` shows each. Plots need matplotlib, which the extra `train` installs.
"""

from bnncc.nn.training.data import (
    Images,
    ImageSet,
    Splits,
    download_mnist,
    flip_and_shift,
    load_cifar,
    load_mnist,
    read_idx,
    scale,
    synthetic,
)
from bnncc.nn.training.history import EpochFigures, History
from bnncc.nn.training.image_folder import ImageFolder
from bnncc.nn.training.loop import (
    Plan,
    count_correct,
    fit,
    recalibrate_statistics,
    seed_everything,
    train_epoch,
)
from bnncc.nn.training.objective import (
    exponential_decay,
    linear_decay,
    square_hinge,
    step_decay,
)
from bnncc.nn.training.parallel import Processes, processes
from bnncc.nn.training.plots import plot_bars, plot_histories
from bnncc.nn.training.recipe import Outcome, Recipe, option_parser, parse_options, run
from bnncc.nn.training.report import (
    Agreement,
    Compiled,
    Row,
    compile_and_check,
    float_row,
    results_table,
)

__all__ = [
    "Agreement",
    "Compiled",
    "EpochFigures",
    "History",
    "ImageFolder",
    "ImageSet",
    "Images",
    "Outcome",
    "Plan",
    "Processes",
    "Recipe",
    "Row",
    "Splits",
    "compile_and_check",
    "count_correct",
    "download_mnist",
    "exponential_decay",
    "fit",
    "flip_and_shift",
    "float_row",
    "linear_decay",
    "load_cifar",
    "load_mnist",
    "option_parser",
    "parse_options",
    "plot_bars",
    "plot_histories",
    "processes",
    "read_idx",
    "recalibrate_statistics",
    "results_table",
    "run",
    "scale",
    "seed_everything",
    "square_hinge",
    "step_decay",
    "synthetic",
    "train_epoch",
]
