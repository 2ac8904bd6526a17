"""What is wrong with a data set: faults, which spoil examples, and warnings, which do not."""

from drn_jax.errors import UserError


class Findings:
    """A list of faults and, by kind, of warnings; readers add to it and go on."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.warnings: dict[str, list[str]] = {}

    def fault(self, text: str) -> None:
        """Add a fault: what is wrong, where, what to do."""
        self.faults.append(text)

    def warn(self, kind: str, text: str) -> None:
        """Add a warning: its kind, as one says it of many ("boxes without area"), and where."""
        self.warnings.setdefault(kind, []).append(text)

    def raise_first(self, command: str) -> None:
        """Raise UserError for the first fault, if any; `command` lists them all."""
        if self.faults:
            more = len(self.faults) - 1
            others = f"; {more} more like it or worse: `{command}` lists them" if more else ""
            raise UserError(self.faults[0] + others)
