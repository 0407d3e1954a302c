"""Run by either interpreter: what a network puts out for every tile of an image, and the logits made of it, as .npz.

usage: tile_outputs.py PACKAGE MODEL_FOLDER FOLD MIRRORING OUTPUT_NPZ IMAGE...

Arrays: `data` (c, x, y, z) preprocessed; `outputs` (passes, heads, *tile), in the order of the passes; `logits`
(heads, x, y, z).
"""

from __future__ import annotations

import importlib
import sys

import numpy as np
import torch


def main() -> None:
    """Predict and record."""
    package, model, fold, mirroring, output = sys.argv[1:6]
    torch.set_num_threads(1)
    module = importlib.import_module(f"{package}.inference.predict_from_raw_data")
    predictor = module.nnUNetPredictor(
        use_mirroring=mirroring == "True",
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(model, (int(fold),), "checkpoint_final.pth")
    configuration = predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    found = preprocessor.run_case(
        list(sys.argv[6:]), None, predictor.plans_manager, configuration, predictor.dataset_json
    )
    data = torch.from_numpy(np.ascontiguousarray(found[0])).float()
    outputs: list[torch.Tensor] = []
    predictor.network.register_forward_hook(lambda _, inputs, result: outputs.extend(result.detach().clone()))
    logits = predictor.predict_logits_from_preprocessed_data(data)
    np.savez(output, data=data.numpy(), outputs=torch.stack(outputs).numpy(), logits=logits.numpy())


if __name__ == "__main__":
    main()
