"""Time until a command has printed its help."""

from __future__ import annotations

from operator import methodcaller

from common import Bench

COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_evaluate_folder", "nnUNetv2_plan_and_preprocess")


def main() -> None:
    """Measure -h of the commands."""
    bench = Bench(__doc__, repeats=5)
    for command in COMMANDS:
        bench.add(f"{command} -h", bench.alternate(methodcaller("run", command, "-h")))
    bench.finish()


if __name__ == "__main__":
    main()
