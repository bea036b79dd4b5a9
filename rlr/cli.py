"""The command line: ``python train.py {fit,validate,test,predict} --config FILE``."""

import jsonargparse
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningCLI

# `${model.init_args.x}` then means the same under `fit` as in the file, and command-line overrides are seen by it
jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)


def main(args: ArgsType = None) -> LightningCLI:
    """Parses ``args`` (default: ``sys.argv``), builds module, data and trainer, and runs the subcommand."""
    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"parser_mode": "omegaconf+"},
        args=args,
    )
