"""Commands that pack, install and download trained models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import NOTHING_WRITTEN, command, make_parser


@partial(command, after_stop=NOTHING_WRITTEN)
def export_model_to_zip_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_export_model_to_zip."""
    parser = make_parser(
        "nnUNetv2_export_model_to_zip",
        "Pack trained models of a dataset into one zip.",
        flags.DATASET,
        flags.ZIP_OUTPUT,
        flags.EXPORTED_CONFIGURATIONS,
        flags.TRAINER,
        flags.PLANS,
        flags.CROSSVALIDATION_FOLDS,
        flags.EXPORTED_CHECKPOINTS,
        flags.NOT_STRICT,
        flags.EXPORT_PREDICTIONS,
        flags.INFERENCE_ONLY,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.model_sharing.model_export import export_pretrained_model

    export_pretrained_model(
        args.d,
        args.o,
        args.c,
        args.tr,
        args.p,
        args.f,
        not args.not_strict,
        args.chk,
        args.exp_cv_preds,
        inference_only=args.inference_only,
    )


@partial(command, after_stop=NOTHING_WRITTEN)
def install_model_from_zip_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_install_pretrained_model_from_zip."""
    parser = make_parser(
        "nnUNetv2_install_pretrained_model_from_zip",
        "Install models from a zip into nnUNet_results; it is checked before anything is written there.",
        flags.ZIP_POSITION,
        flags.OVERWRITE_MODELS,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.model_sharing.model_import import install_model_from_zip_file

    install_model_from_zip_file(args.zip, args.overwrite)


@command
def download_model_by_url_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_download_pretrained_model_by_url."""
    parser = make_parser(
        "nnUNetv2_download_pretrained_model_by_url",
        "Download a zip of models and install it into nnUNet_results.",
        flags.URL_POSITION,
        flags.SHA256,
        flags.OVERWRITE_MODELS,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.model_sharing.model_download import download_and_install_from_url

    download_and_install_from_url(args.url, args.sha256, args.overwrite)
