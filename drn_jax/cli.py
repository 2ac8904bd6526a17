"""How the programs meet the person at the terminal: flags in, one clear line for every mistake."""

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

from drn_jax.errors import UserError, nearest

CONFIGS = Path(__file__).parent.parent / "configs"

on_failure: list[Callable[[str], None]] = []
"""Called with what a program that ends in an error should print last. `runtime` adds what prints it
and ends the other processes too."""


def run(define_flags: Callable[[], None], main: Callable[[], int | None]) -> None:
    """Define the flags, parse the command line, run `main`, exit with its status.

    A UserError, an unknown flag or a bad configuration ends in one line on standard error and
    status 1; no traceback, for it is not a fault of the program.
    """

    def guarded(args: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells a lot; --verbosity=0 shows it.
        try:
            if len(args) > 1:
                raise UserError(f"unexpected argument {args[1]!r}: flags start with --")
            status = main()
        except UserError as error:
            fail(str(error))
        except BaseException:
            _give_up(traceback.format_exc())
            raise
        else:
            sys.exit(status or 0)

    try:
        sys.argv[1:] = _name_config_file(sys.argv[1:])
        define_flags()  # A config flag reads its file and the overrides already here.
    except Exception as error:
        fail(_explain(error))
    app.run(guarded, flags_parser=_parse)


def fail(message: str) -> None:
    """Print the one line and exit with status 1."""
    line = f"error: {message}"
    _give_up(line)
    print(line, file=sys.stderr)
    sys.exit(1)


def _give_up(text: str) -> None:
    for act in on_failure:
        act(text)


def asks_for_help() -> bool:
    """Whether the command line holds a flag that only prints help."""
    return any(re.match(r"--?(help|helpfull|helpshort|helpxml)\b|-\?", a) for a in sys.argv[1:])


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except SystemExit:  # Help was printed, which absl calls a failure.
        sys.exit(0)
    except Exception as error:  # A configuration file is a program: it may raise anything.
        fail(_explain(error))
        raise


def _name_config_file(args: list[str]) -> list[str]:
    """The arguments with `--config NAME` made `--config=NAME`, and NAME an existing file.

    `camvid` alone means `configs/camvid.py`; relative paths may start here or where train.py lies.

    Raises: UserError if there is no such file, offering the nearest.
    """
    args = list(args)
    for flag in ("--config", "-config"):
        if flag in args[:-1]:
            at = args.index(flag)
            args[at : at + 2] = [f"--config={args[at + 1]}"]
    return [re.sub(r"^--?config=(.+)", lambda m: f"--config={_file(m[1])}", a) for a in args]


def _file(value: str) -> str:
    name, colon, variant = value.partition(":")
    for path in (Path(name), CONFIGS.parent / name, CONFIGS / f"{name}.py"):
        if path.is_file():
            return f"{path}{colon}{variant}"
    known = [path.stem for path in CONFIGS.glob("*.py")]
    raise UserError(f"--config={value}: no such file; {nearest(Path(name).stem, known)}")


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Traceback" in text:  # Of a configuration file; its last line says it.
        text = str(error).strip().splitlines()[-1].strip()
        if "get_config() takes 0" in text:
            return "--config: this configuration has no variants; leave out what follows the colon"
        return f"bad configuration: {text}"
    if text.startswith("Found --config."):
        return "--config=NAME must come before --config.FIELD=VALUE"
    if isinstance(error, UserError | flags.Error):
        return text
    if isinstance(error, AttributeError | KeyError) and not text.startswith("module "):
        names = re.findall(r"[\w.]+", text)
        known = re.search(r'Did you mean "([\w.]+)"', text)
        offer = f": did you mean {known[1]!r}?" if known else ""
        return f"the configuration has no field {names[0]!r}{offer}" if names else text
    return f"bad configuration: {text or type(error).__name__}"
