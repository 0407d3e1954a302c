"""Writes the tables of commands and flags of reference.md from the parsers of the commands.

    python documentation/make_reference.py

renews what stands between `<!-- commands -->` and `<!-- end of commands -->`, and between the same for flags; the rest
of the page is written by hand. A new command or flag appears by itself; tests/test_reference.py says when this is due.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "documentation" / "reference.md"
GROUPS = {  # modules of nnunet_lite.cli; those that are named nowhere come last
    "Datasets, planning, preprocessing": ("planning", "conversion", "overlays"),
    "Training": ("training", "pretrained_training"),
    "Prediction": ("inference",),
    "Evaluation": ("evaluation",),
    "Choosing and finishing models": ("status", "model_selection", "postprocessing", "report", "reporting"),
    "Sharing models": ("model_sharing",),
    "Everything at once": ("demo",),
}
LINKS = {  # where a command is explained, if not on a page of its own name
    "nnUNetv2_check_dataset": "how-to.md#checking-a-dataset",
    "nnUNetv2_extract_fingerprint": "preprocessing.md",
    "nnUNetv2_plan_experiment": "plans.md",
    "nnUNetv2_preprocess": "preprocessing.md",
    "nnUNetv2_plan_and_preprocess": "preprocessing.md",
    "nnUNetv2_move_plans_between_datasets": "plans.md#use-another-datasets-plans",
    "nnUNetv2_preprocess_like_nnssl": "pretraining-and-finetuning.md",
    "nnUNetv2_plan_like_dynamic": "pretraining-and-finetuning.md",
    "nnUNetv2_convert_MSD_dataset": "how-to.md#converting-datasets",
    "nnUNetv2_convert_old_nnUNet_dataset": "coming-from-v1.md",
    "nnUNetv2_plot_overlay_pngs": "how-to.md#look-at-the-training-cases",
    "nnUNetv2_train": "training.md",
    "nnUNetv2_train_pretrained": "pretraining-and-finetuning.md",
    "nnUNetv2_predict": "inference.md",
    "nnUNetv2_predict_from_modelfolder": "pretrained-models.md",
    "nnUNetv2_evaluate_folder": "evaluation.md",
    "nnUNetv2_evaluate_simple": "how-to.md#evaluate-without-a-dataset",
    "nnUNetv2_accumulate_crossval_results": "choosing-a-model.md",
    "nnUNetv2_find_best_configuration": "choosing-a-model.md",
    "nnUNetv2_determine_postprocessing": "choosing-a-model.md",
    "nnUNetv2_apply_postprocessing": "choosing-a-model.md",
    "nnUNetv2_ensemble": "choosing-a-model.md",
    "nnUNetv2_status": "getting-started.md#choose-a-model",
    "nnUNetv2_export_model_to_zip": "sharing-models.md",
    "nnUNetv2_install_pretrained_model_from_zip": "sharing-models.md",
    "nnUNetv2_download_pretrained_model_by_url": "sharing-models.md",
    "nnUNetv2_demo": "getting-started.md#see-it-work",
}
VARIABLES = ("nnUNet_def_n_proc", "nnUNet_npp", "nnUNet_nps")  # environment variables that change defaults
KINDS = {"int": "number", "natural_number": "number", "positive_int": "number", "float": "number"}
KINDS |= {"positive_float": "number", "dataset": "id or name", "fold": "number or all"}


class _Caught(Exception):
    """Carries a command's parser out of the command."""


def scripts() -> dict[str, str]:
    """Every command and its entry, `module:function` below nnunet_lite.cli, in the order of pyproject.toml."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(re.findall(r'^(nnUNetv2_\w+) = "nnunet_lite\.cli\.([\w:]+)"', project, re.MULTILINE))


def upstreams_flags() -> dict[str, set[str]]:
    """The flags that nnU-Net v2 has, by entry: the table that tests/cli/test_flags.py freezes."""
    file = ROOT / "tests" / "cli" / "test_flags.py"
    spec = importlib.util.spec_from_file_location("frozen_flags", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {entry: {row[0] for row in rows} for entry, rows in module.UPSTREAM.items()}


def parser_of(entry: str, **environment: str) -> argparse.ArgumentParser:
    """The parser that a command builds; nothing of the command runs. Of the variables, only those given are set."""

    def catch(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Caught(self)

    module, name = entry.split(":")
    function = getattr(importlib.import_module(f"nnunet_lite.cli.{module}"), name)
    kept = {variable: os.environ.pop(variable) for variable in VARIABLES if variable in os.environ}
    original, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, catch  # type: ignore[assignment,method-assign]
    os.environ.update(environment)
    try:
        function([])
    except _Caught as caught:
        parser: argparse.ArgumentParser = caught.args[0]
        return parser
    finally:
        argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]
        for variable in environment:
            del os.environ[variable]
        os.environ.update(kept)
    raise AssertionError(f"{entry} parses nothing")


def grouped() -> dict[str, list[str]]:
    """The commands by the title of their group."""
    title_of = {module: title for title, modules in GROUPS.items() for module in modules}
    groups: dict[str, list[str]] = {title: [] for title in (*GROUPS, "Other")}
    for name, entry in scripts().items():
        groups[title_of.get(entry.split(":")[0], "Other")].append(name)
    return {title: names for title, names in groups.items() if names}


def commands_section() -> str:
    """A table for every group: command, the first sentence of its description, where it is explained."""
    upstream = upstreams_flags()
    lines = []
    for title, names in grouped().items():
        lines += [f"### {title}", "", "| command | does |", "|---|---|"]
        for name in names:
            entry = scripts()[name]
            says = re.split(r"(?<=\w)\. ", _description(entry))[0].rstrip(".")
            page = LINKS.get(name, f"{name.removeprefix('nnUNetv2_')}.md")
            link = f" ([more]({page}))" if (PAGE.parent / page.split("#")[0]).is_file() else ""
            lines.append(f"| [`{name}`](#{name.lower()}){'' if entry in upstream else ' *'} | {says}{link} |")
        lines.append("")
    return "\n".join(lines)


def flags_section() -> str:
    """A table for every command: flag, value, default, meaning."""
    upstream = upstreams_flags()
    lines = []
    for names in grouped().values():
        for name in names:
            entry = scripts()[name]
            parser = parser_of(entry)
            variables = _variables(entry)
            positions = [action.dest for action in parser._actions if not action.option_strings]
            usage = [f"`{name} {' '.join(positions)} [flags]`", ""] if positions else []
            lines += [f"### {name}", "", *usage, _description(entry), ""]
            lines += ["| flag | value | default | meaning |", "|---|---|---|---|"]
            for action in parser._actions:
                if action.dest != "help":
                    lines.append(_row(action, parser, upstream.get(entry), variables.get(action.dest)))
            lines.append("")
    return "\n".join(lines)


def _description(entry: str) -> str:
    return _cell(parser_of(entry).description or "")


def _variables(entry: str) -> dict[str, str]:
    """Flags whose default an environment variable changes."""
    usual = {action.dest: action.default for action in parser_of(entry)._actions}
    return {
        action.dest: variable
        for variable in VARIABLES
        for action in parser_of(entry, **{variable: "5"})._actions
        if action.default != usual[action.dest]
    }


def _row(
    action: argparse.Action, parser: argparse.ArgumentParser, upstream: set[str] | None, variable: str | None
) -> str:
    names = action.option_strings or [action.dest]
    meaning, default = _meaning(action, parser)
    if variable:
        default += f", or {variable}"
    ours = upstream is not None and not upstream & set(names)
    cell = " ".join(f"`{name}`" for name in names) + (" *" if ours else "")
    return f"| {cell} | {_value(action)} | {default} | {meaning} |"


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    kind = (
        ", ".join(map(str, action.choices)) if action.choices else KINDS.get(getattr(action.type, "__name__", ""), "")
    )
    kind = kind or (action.metavar if isinstance(action.metavar, str) else "text")
    return " ".join(word for word in (kind, "..." if action.nargs in ("+", "*") else "") if word)


def _meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> tuple[str, str]:
    """What a flag means, and its default, which the help text may hold at its end in words."""
    text = _cell((action.help or "") % {**vars(action), "prog": parser.prog})
    said = re.search(r" \(default: (.*)\)$", text)
    if said:
        return text[: said.start()], said.group(1)
    if action.required:
        return text, "required"
    return text, "" if action.default in (None, False, argparse.SUPPRESS) else str(action.default)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("__", "\\_\\_").replace("*", "\\*").replace("<", "\\<")


def renewed(page: str) -> str:
    """The page with its generated parts written anew."""
    for name, text in (("commands", commands_section()), ("flags", flags_section())):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
