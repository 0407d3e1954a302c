"""nnUNetv2_extract_fingerprint of a dataset, without and with the integrity check."""

from __future__ import annotations

from operator import methodcaller

from common import Bench, Side, remove


def main() -> None:
    """Measure both."""
    bench = Bench(__doc__, ("--dataset", {"default": "Dataset004_Hippocampus"}))
    name = bench.args.dataset
    bench.dataset(name)

    def prepare(side: Side) -> None:
        remove(side.preprocessed / name)

    for what, flags in (("", []), (" with integrity check", ["--verify_dataset_integrity"])):
        run = methodcaller("run", "nnUNetv2_extract_fingerprint", "-d", str(int(name[7:10])), "-np", "2", *flags)
        found = bench.alternate(run, prepare)
        bench.add(f"fingerprint {name}{what}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
