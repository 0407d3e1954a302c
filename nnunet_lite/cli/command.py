"""How a command is made: its parser of flags, its messages, its exit codes.

Nothing heavy is imported here, so that -h answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.utilities.termination import TERMINATED, end_quietly, orderly_sigterm


class Flag:
    """One flag or positional argument; immutable, `but` makes a variant."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.names = names
        self.options = options

    def but(self, **changes: Any) -> Flag:
        """The same flag with other options (default, required, nargs, help ...)."""
        return Flag(*self.names, **{**self.options, **changes})

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Declare it on a parser; defaults that depend on the environment are resolved now."""
        options = dict(self.options)
        if callable(options.get("default")):
            options["default"] = options["default"]()
        parser.add_argument(*self.names, **options)


_NOT_POSITIONS = {"-d": "dataset_name_or_id", "-c": "configuration", "-f": "fold"}  # flags of other commands
_NO_NUMBER = re.compile(r"argument ([^:]+): invalid (int|float) value: '(.*)'")
_LONG = 6  # of flags: argparse takes a misspelled one for a short flag with its value, -p for -pretrained_weigths


class _Parser(argparse.ArgumentParser):
    """Reports mistakes in one line, with the closest flag there is."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As the base class does; first come the mistakes that it would take for something else."""
        given = [str(word) for word in (sys.argv[1:] if args is None else args)]
        self._refuse_flags_for_positions(given)
        known = self._option_string_actions
        for word in given:
            name = word.partition("=")[0]
            if name.startswith("-") and not name.startswith("--") and not any(flag.startswith(name) for flag in known):
                long = [flag for flag in known if len(flag) >= _LONG]
                if len(name) >= _LONG and difflib.get_close_matches(name, long, 1, 0.8):
                    self.error(self._explain(word))
        parsed: tuple[Any, list[str]] = super().parse_known_args(args, namespace)
        return parsed

    def _refuse_flags_for_positions(self, given: Sequence[str]) -> None:
        if [action.dest for action in self._actions if not action.option_strings] != list(_NOT_POSITIONS.values()):
            return
        values = {flag: value for flag, value in zip(given, given[1:], strict=False) if flag in _NOT_POSITIONS}
        if values and (
            set(values) != {"-d"} or values["-d"] not in ("cuda", "cpu", "mps", "auto")
        ):  # else short for -device
            example = zip(_NOT_POSITIONS, ("4", "2d", "0"), strict=True)
            words = " ".join(values.get(flag, value) for flag, value in example)
            self.error(f"takes dataset, configuration and fold without flags: {self.prog} {words}")

    def error(self, message: str) -> NoReturn:
        unknown = "unrecognized arguments: "
        if message.startswith(unknown):
            message = "; ".join(self._explain(word) for word in message[len(unknown) :].split())
        number = _NO_NUMBER.fullmatch(message)
        if number is not None:
            message = f"{number[1]} {number[3]}: expected {'a whole number' if number[2] == 'int' else 'a number'}"
        positional = " ".join(str(action.dest) for action in self._actions if not action.option_strings)
        if "arguments are required" in message and positional:
            message += f"; expected: {self.prog} {positional} [flags]"
        self.exit(2, f"{self.prog}: {message} (see {self.prog} -h)\n")

    def _explain(self, word: str) -> str:
        known = [name for action in self._actions for name in action.option_strings]
        close = difflib.get_close_matches(word.split("=")[0], known, n=1, cutoff=0.5)
        hint = f", did you mean {close[0]}?" if close else ""
        return f"unknown {'flag' if word.startswith('-') else 'argument'} {word}{hint}"


def make_parser(prog: str, description: str, *flags: Flag) -> argparse.ArgumentParser:
    """A parser of these flags, in this order."""
    parser = _Parser(prog=prog, description=description)
    for flag in flags:
        flag.add_to(parser)
    return parser


SAME_COMMAND = "Stopped. Finished work is kept; the same command goes on."
NOTHING_WRITTEN = "Stopped; nothing was written."
_STARTS_OVER = ("--clean", "--overwrite", "--overwrite_pp")  # flags with which the same command does not go on


def _say_stopped(stop: BaseException, after_stop: str, argv: Sequence[str] | None) -> None:
    given = [flag for flag in _STARTS_OVER if flag in (sys.argv[1:] if argv is None else argv)]
    but = f" With {given[0]} it starts over." if given and after_stop == SAME_COMMAND else ""
    for line in (f"{after_stop}{but}", *getattr(stop, "__notes__", ())):
        print(line, file=sys.stderr)


def command(
    function: Callable[[Sequence[str] | None], int | None], after_stop: str = SAME_COMMAND
) -> Callable[..., int]:
    """Turn a function of the arguments into a command: messages on the terminal, a user's mistake as one line.

    Args:
        function: of the arguments after the command's name, or None for those of this process.
        after_stop: what is printed after Ctrl-C or SIGTERM, before the notes of the exception that they raise.

    Exit codes: 0 done; 2 a mistake or failed cases, explained on stderr; 130 Ctrl-C; 143 SIGTERM.
    """

    @functools.wraps(function)
    @orderly_sigterm()
    def run(argv: Sequence[str] | None = None) -> int:
        from nnunet_lite.utilities.logging import log_to_console, open_missing_streams

        if argv is None:  # called by the console script
            open_missing_streams()
        log_to_console()
        try:
            return function(argv) or 0
        except nnUNetError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            _say_stopped(stop, after_stop, argv)
            return 130
        except SystemExit as stop:
            if stop.code == TERMINATED:
                _say_stopped(stop, after_stop, argv)
            raise
        finally:
            if argv is None:
                end_quietly()

    return run
