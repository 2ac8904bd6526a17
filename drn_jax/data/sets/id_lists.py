"""Lists of the ids of images, one a line: those of PASCAL VOC, of SBD and of their kin."""

from collections.abc import Callable

from drn_jax.data.files import Files
from drn_jax.data.findings import Findings
from drn_jax.errors import UserError


def read_ids(
    files: Files, name: str, findings: Findings, parse: Callable[[str], str] = str.strip
) -> list[str]:
    """The ids that a list names, each once, in the order of the list.

    Args:
      parse: makes the id of a line; raises ValueError for what is none.

    Raises: UserError if the list is missing, no text or empty.
    """
    where = files.where(name)
    try:
        lines = files.read(name).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a text file ({error.reason}); fetch it again") from error
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            id_ = parse(line)
        except ValueError as error:
            findings.fault(f"{where}: line {number} {error}")
            continue
        if id_ in ids:
            findings.fault(f"{where}: line {number} lists {id_} again (line {ids[id_]})")
        ids.setdefault(id_, number)
    if not ids:
        raise UserError(f"{where}: lists no image; fetch it again")
    return list(ids)
