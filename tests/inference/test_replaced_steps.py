"""Predictors of somebody's own that replace a public step: files, arrays and results go through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_lite.exceptions import ExtensionError, nnUNetError
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.inference.prediction_forecast import PredictionProgress
from nnunet_lite.inference.replaced_steps import SeveralPasses, checked, mean_over_members, replaces

SETTINGS = {"device": "cpu", "allow_tqdm": False, "use_mirroring": False}


class Shifted(nnUNetPredictor):
    """Label 2 everywhere, by way of the usual logits."""

    def predict_logits_from_preprocessed_data(self, data):
        logits = super().predict_logits_from_preprocessed_data(data)
        logits[2] += 1000
        return logits


class OneLabel(nnUNetPredictor):
    """Label 1 everywhere; counts how often it is asked."""

    asked = 0

    def predict_sliding_window_return_logits(self, input_image):
        self.asked += 1
        logits = super().predict_sliding_window_return_logits(input_image)
        return torch.zeros_like(logits) + torch.tensor([0.0, 1.0, 0.0])[:, None, None, None]


def loaded(cls, model, folds=None, **options):
    predictor = cls(**{**SETTINGS, **options})
    predictor.initialize_from_trained_model_folder(model, folds)
    return predictor


@pytest.mark.parametrize(("cls", "label"), [(Shifted, 2), (OneLabel, 1)])
@pytest.mark.parametrize("workers", [0, 1])
def test_files_go_through_the_step(model, images, tmp_path, cls, label, workers):
    predictor = loaded(cls, model)
    predictor.predict_from_files(
        images, tmp_path / "out", num_processes_preprocessing=workers, num_processes_segmentation_export=workers
    )
    results = loaded(cls, model).predict_from_files_sequential(images, None)
    assert len(results) == 3
    assert all((result == label).all() for result in results)
    written = nnUNetPredictor(**SETTINGS)
    written.initialize_from_trained_model_folder(model, 0)
    reader = written.plans_manager.image_reader_writer_class()
    for name, result in zip("abc", results, strict=True):
        assert np.array_equal(reader.read_seg(str(tmp_path / "out" / f"{name}.nii.gz"))[0][0], result)


def test_it_is_asked_once_for_each_member_and_image(model, images):
    predictor = loaded(OneLabel, model)
    predictor.predict_from_files_sequential(images, None)
    assert predictor.asked == 2 * 3


def test_a_low_limit_of_memory_does_not_lead_around_it(model, images):
    """Bands would need no logits of the whole image, and so would not ask for them."""
    for result in loaded(Shifted, model, max_ram=2**20).predict_from_files_sequential(images, None):
        assert (result == 2).all()


def test_arrays_and_one_object_alone(model, images, monkeypatch):
    predictor = loaded(nnUNetPredictor, model)
    image, properties = predictor.plans_manager.image_reader_writer_class().read_images([str(min(images.iterdir()))])
    usual = predictor.predict_single_npy_array(image, properties)
    assert len(np.unique(usual)) > 1

    def flat(data):
        return torch.zeros(3, *data.shape[1:])

    monkeypatch.setattr(predictor, "predict_sliding_window_return_logits", flat)
    assert not predictor.predict_single_npy_array(image, properties).any()
    monkeypatch.undo()
    assert np.array_equal(predictor.predict_single_npy_array(image, properties), usual)


def test_the_usual_predictor_has_nothing_replaced():
    predictor = nnUNetPredictor(**SETTINGS)
    assert not replaces(predictor, nnUNetPredictor, "predict_logits_from_preprocessed_data")
    assert replaces(Shifted(**SETTINGS), nnUNetPredictor, "predict_logits_from_preprocessed_data")
    assert not replaces(Shifted(**SETTINGS), nnUNetPredictor, "predict_sliding_window_return_logits")


def test_mean_over_members():
    weights = {"value": 0.0}
    image = torch.zeros(1, 2, 3, 4)

    def predict(data):
        return torch.full((2, 2, 3, 4), weights["value"], dtype=torch.float16)

    members = [{"value": value} for value in (1.0, 2.0, 6.0)]
    mean = mean_over_members(predict, image, members, weights.update)
    assert mean.dtype == torch.float16
    assert mean.shape == (2, 2, 3, 4)
    assert (mean == 3).all()
    alone = mean_over_members(predict, image, members[2:], weights.update)
    assert (alone == 6).all()


@pytest.mark.parametrize("given", [torch.zeros(2, 2, 3, 5), torch.zeros(3, 2, 3, 4), np.zeros((2, 2, 3, 4)), None])
def test_logits_of_another_shape_are_an_error(given):
    image = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ExtensionError, match=r"expected \(2, 2, 3, 4\)"):
        checked(given, image, 2)


def test_logits_of_any_type_become_half_precision():
    image = torch.zeros(1, 2, 3, 4)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        logits = checked(torch.full((2, 2, 3, 4), 7.0, dtype=dtype, requires_grad=True), image, 2)
        assert logits.dtype == torch.float16
        assert (logits.numpy() == 7).all()


def test_a_failing_step_fails_its_case_alone(model, images, tmp_path):
    class Failing(nnUNetPredictor):
        calls = 0

        def predict_logits_from_preprocessed_data(self, data):
            self.calls += 1
            if self.calls == 2:
                raise ValueError("of my own")
            return super().predict_logits_from_preprocessed_data(data)

    with pytest.raises(nnUNetError, match="of my own"):
        loaded(Failing, model, 0).predict_from_files(images, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz"]


def test_passes_add_up(model):
    progress = PredictionProgress([4], show_bar=False)
    passes = SeveralPasses(progress, 2)
    for _ in range(2):
        passes.reset(5)
        for _ in range(5):
            passes.update()
    assert progress._forecast.done == progress._forecast.total == 10
