"""Trains and prints the table of docs/context.md: what a context module adds to a front end.

    python docs/context_table.py RUNS        about an hour on two CPU cores

RUNS receives the runs; those that are finished are not repeated. For each of three seeds the front
end is trained once, and all modules learn from its maps.
"""

import statistics
import subprocess
import sys
from pathlib import Path

from drn_jax.training.checkpoint import Checkpoints

SEEDS = (0, 1, 2)
FRONT_ENDS = {"vgg": "dilated VGG", "drn": "DRN-D-22"}
MODULES = [(size, init) for size in ("basic", "large") for init in ("identity", "he")]


def main(runs: Path) -> None:
    for seed in SEEDS:
        for front in FRONT_ENDS:
            place = runs / f"{front}_{seed}"
            train(f"quickstart_context:{front}", place, seed, "--until=front_end")
            for size, init in MODULES:
                train(
                    "quickstart_context:context",
                    runs / f"{front}_{seed}_{size}_{init}",
                    seed,
                    f"--config.data.front_end={place / 'front_end'}",
                    f"--config.model.context.size={size}",
                    f"--config.model.context.init={init}",
                    *(GRIDS[front]),
                )
    print("| front end | alone |", " | ".join(f"{s}, {i}" for s, i in MODULES), "|")
    print("|---|---:|" + "---:|" * len(MODULES))
    for front, title in FRONT_ENDS.items():
        places = ["{front}_{seed}/front_end"]
        places += [f"{{front}}_{{seed}}_{size}_{init}" for size, init in MODULES]
        cells = [
            spread([score(runs / p.format(front=front, seed=seed)) for seed in SEEDS])
            for p in places
        ]
        print(f"| {title} |", " | ".join(cells), "|")


GRIDS = {
    "vgg": (),
    "drn": (
        "--config.data.grid.alignment=centre",
        "--config.data.grid.interpolate=logits",
        "--config.data.grid.loss_at=pixels",
    ),
}
"""How each front end's map lies on the image: as in its own training."""


def train(config: str, workdir: Path, seed: int, *flags: str) -> None:
    """Run train.py, unless it has."""
    last = workdir / "front_end" if "--until=front_end" in flags else workdir
    if (last / "report.html").exists():
        return
    command = [f"--config={config}", f"--config.seed={seed}", f"--workdir={workdir}", *flags]
    print("train.py", *command, flush=True)
    subprocess.run([sys.executable, "train.py", *command], check=True, stdout=subprocess.DEVNULL)


def score(workdir: Path) -> float:
    """Mean IoU of the last checkpoint, %: no choice among checkpoints flatters a run."""
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        scores = checkpoints.choose("latest").scores or {}
    return 100 * scores["miou"]


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds, and each."""
    each = ", ".join(f"{value:.1f}" for value in values)
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} ({each})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
