"""The configuration of a run in stages: several runs, a later one from an earlier one's weights.

A file under `configs/` ends in `return complete(name, stages)`; `parse` gives the typed `Staged`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ml_collections import ConfigDict

from drn_jax import config
from drn_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Staged:
    """Runs one after the other, each in a folder of its own; a later one may start from an earlier
    one, naming it by its stage."""

    name: str
    """Names the default working directory, runs/NAME."""
    stages: Mapping[str, config.Config]
    """In the order of training."""

    def under(self, workdir: str) -> dict[str, config.Config]:
        """The runs, stages replaced by their folders below `workdir`."""

        def place(value: str) -> str:
            return f"{workdir}/{value}" if value in self.stages else value

        found = {}
        for stage, run in self.stages.items():
            data = run.data
            if isinstance(data, config.MapData):
                data = replace(data, front_end=place(data.front_end))
            found[stage] = replace(
                run,
                data=data,
                init_from=place(run.init_from),
                init_context_from=place(run.init_context_from),
            )
        return found


def complete(name: str, stages: Mapping[str, ConfigDict]) -> ConfigDict:
    """The configuration of a run in stages, with a value for every field.

    `seed`, unless negative, and `dir`, unless empty, hold for all stages.
    """
    filled = {stage: config.complete(run).to_dict() for stage, run in stages.items()}
    # A ConfigDict forgets the order of its fields.
    given = {"name": name, "seed": -1, "dir": "", "order": tuple(stages), "stages": filled}
    return ConfigDict(given)


def parse(given: ConfigDict) -> Staged:
    """The typed configuration of a run in stages. Raises as `config.parse`."""
    fields = given.to_dict()
    stages = {}
    for stage in fields["order"]:
        if stage not in fields["stages"]:
            raise UserError(f"config.order: no stage {stage!r}; {nearest(stage, fields['stages'])}")
        try:
            run = config.parse(fields["stages"][stage])
        except UserError as error:
            raise UserError(f"config.stages.{stage}: {error}") from None
        if fields["seed"] >= 0:
            run = replace(run, seed=fields["seed"])
        if fields["dir"]:
            run = replace(run, data=replace(run.data, dir=fields["dir"]))
        stages[stage] = run
    return Staged(fields["name"], stages)
