"""Find a class or function by the name that stands in a document or on a command line.

Three places, in this order: the package itself, the folders of nnUNet_extTrainer (any kind, not only trainers), entry
points `nnunet_lite.<kind>`. Files are read for the definition first and only the module that holds it is imported, so
an unrelated module with a missing dependency never stands in the way.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.paths import external_class_folders, faults_of_external_folders

_PACKAGE = Path(__file__).parent

# kind -> (folder of the package that is searched, what its own names look like: for listing them to a user,
# what each of them has)
KINDS = {
    "trainer": ("training/nnUNetTrainer", r"nnUNet_?Trainer|nnUNet_Primus|PretrainedTrainer", "run_training"),
    "planner": ("experiment_planning", r"Planner", "plan_experiment"),
    "fingerprint_extractor": ("experiment_planning", r"FingerprintExtractor$", "run"),
    "preprocessor": ("preprocessing", r"Preprocessor$", "run_case"),
    "normalization": ("preprocessing", r"Normalization$", "run"),
    "resampling": ("preprocessing", r"^resample_|resampling_hack$", "__call__"),
    "reader_writer": ("imageio", r"IO(WithReorient)?$", "read_images"),
    "label_manager": ("plans", r"LabelManager$", "all_labels"),
}

_FEW, _CLOSEST = 8, 5  # names in an error message: all of a few, else the closest

_DEFINITION = re.compile(r"^(?:class|def)[ \t]+(\w+)", re.MULTILINE)


def find_class(kind: str, name: str) -> Any:
    """Return the class (or function) called `name` of the given kind.

    Args:
        kind: one of the keys of `KINDS`.
        name: as it stands in plans.json, a checkpoint or a flag.

    Raises:
        ExtensionError: nobody defines it (lists where was searched and the closest names), or its module fails to load.
    """
    builtin = _builtin_definitions(kind)
    if name in builtin:
        return _of_kind(kind, name, getattr(import_module(builtin[name]), name))
    folders = external_class_folders()
    for folder in folders:
        found = find_in_folder(folder, name)
        if found is not None:
            return found
    for entry_point in entry_points(group=f"nnunet_lite.{kind}"):
        if entry_point.name == name:
            return entry_point.load()
    raise ExtensionError(_not_found(kind, name, folders))


def find_in_folder(folder: Path, name: str) -> Any:
    """The class or function of that name in a user's folder or below, or None.

    Raises:
        ExtensionError: the file that defines it cannot be imported.
    """
    for file, names in _definitions(folder):
        if name in names:
            return getattr(_import_external(file, folder), name)
    return None


def _of_kind(kind: str, name: str, found: Any) -> Any:
    """A definition of the package, unless it is one of the helpers that lie in the same folder."""
    if hasattr(found, KINDS[kind][2]):
        return found
    listed = ", ".join(known_names(kind))
    what = kind.replace("_", " ")
    raise ExtensionError(f"{name!r} is no {what}: it has no {KINDS[kind][2]}; there are: {listed}")


def builtin_file(kind: str, name: str) -> Path | None:
    """The file of the package that defines a name; None if it is not built in."""
    module = _builtin_definitions(kind).get(name)
    return None if module is None else _PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")


def known_names(kind: str) -> list[str]:
    """Every name of this kind that can be found now: built in, in the user's folders, in entry points."""
    names = {name for name in _builtin_definitions(kind) if re.search(KINDS[kind][1], name)}
    for folder in external_class_folders():
        names.update(name for _, defined in _definitions(folder) for name in defined)
    names.update(entry_point.name for entry_point in entry_points(group=f"nnunet_lite.{kind}"))
    return sorted(name for name in names if not name.startswith("_"))


def _closest(kind: str, name: str) -> list[str]:
    """All names of a kind if they are few, else those most like a given one."""
    known = known_names(kind)
    return difflib.get_close_matches(name[:100], known, len(known) if len(known) <= _FEW else _CLOSEST, 0.0)


def _not_found(kind: str, name: str, folders: list[Path]) -> str:
    known = known_names(kind)
    closest = ", ".join(_closest(kind, name))
    some = len(known) > _FEW
    there_are = f"of the {len(known)} there are, the closest are: {closest}" if some else f"there are: {closest}"
    searched = ", ".join(str(folder) for folder in (_PACKAGE / KINDS[kind][0], *folders))
    hint = "" if folders else " (no folder of your own: nnUNet_extTrainer is not set)"
    faults = faults_of_external_folders()
    if faults:
        hint = f" (nnUNet_extTrainer: {'; '.join(faults)})"
    return f"There is no {kind.replace('_', ' ')} called {name!r}; {there_are}. Searched: {searched}{hint}"


@cache
def _builtin_definitions(kind: str) -> dict[str, str]:
    """Name -> dotted module, of everything defined below the kind's folder; the first file in order wins."""
    found: dict[str, str] = {}
    for file, names in _definitions(_PACKAGE / KINDS[kind][0]):
        relative = file.relative_to(_PACKAGE.parent).with_suffix("")
        for name in names:
            found.setdefault(name, ".".join(relative.parts))
    return found


def _definitions(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Python files below `folder`, files before sub-folders, each with the names defined at its top level."""
    files = sorted(folder.rglob("*.py"), key=lambda file: (len(file.relative_to(folder).parts), file))
    for file in files:
        yield file, _DEFINITION.findall(file.read_text(encoding="utf-8", errors="replace"))


def _import_external(file: Path, folder: Path) -> ModuleType:
    """Import a user's file; it may import its neighbours, relatively if they form a package.

    Background workers import it again, by its name and the search path that they inherit, to make sense of what they
    are sent. Where that name means something else it gets one of its own, which only this process knows.
    """
    file = file.resolve()
    in_package = (file.parent / "__init__.py").exists() and file.parent != folder.resolve()
    root = folder.resolve() if in_package else file.parent
    if str(root) not in sys.path:
        sys.path.append(str(root))
    try:
        if in_package:
            return import_module(".".join(file.relative_to(root).with_suffix("").parts))
        name = file.stem if _names_this_file(file.stem, file) else f"nnunet_lite_external_{crc32(bytes(file)):x}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} is no Python module")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except Exception as error:
        message = f"{file} cannot be imported: {type(error).__name__}: {error}{_advice(error)}"
        raise ExtensionError(message) from error


def _advice(error: Exception) -> str:
    """What to do about a module that is not there, of those that trainers for nnU-Net v2 import."""
    missing = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
    if missing == "nnunetv2":
        return "; replace nnunetv2 by nnunet_lite in its imports"
    if missing in ("batchgenerators", "batchgeneratorsv2"):
        return f"; install it: pip install {missing}"
    return ""


def _names_this_file(name: str, file: Path) -> bool:
    """Whether `import name` finds this file."""
    importlib.invalidate_caches()  # the file may be new
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a name with dots; a module without a file
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file
