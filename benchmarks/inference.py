"""nnUNetv2_predict_from_modelfolder on a CPU with the checkpoint recorded from upstream."""

from __future__ import annotations

import shutil
from functools import partial

from common import Bench, Measurement, Side, remove


def main() -> None:
    """Measure with and without mirroring."""
    bench = Bench(__doc__, ("--cases", {"type": int, "default": 20}), repeats=2)
    name = "Dataset004_Hippocampus"
    model = bench.shared / "goldens" / name / "predictions" / "model"
    images = bench.work / "images"
    remove(images)
    images.mkdir()
    for file in sorted((bench.dataset(name) / "imagesTr").iterdir())[: bench.args.cases]:
        shutil.copyfile(file, images / file.name)

    def predict(flags: list[str], side: Side) -> Measurement:
        return side.predict(images, model, side.folder / "predictions", 2, *flags)

    for what, flags in (("without mirroring", ["--disable_tta"]), ("with mirroring", [])):
        found = bench.alternate(partial(predict, flags))
        bench.add(f"predict {bench.args.cases} cases of {name}, {what}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
