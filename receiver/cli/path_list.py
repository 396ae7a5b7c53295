"""``accounts list --paths``: how each account's paths stand, as the receiver wrote them down last."""

from collections import defaultdict
from collections.abc import Callable

from receiver import clock, path_file
from receiver.accounts import Account
from receiver.config import Settings
from receiver.path_values import ALIVE, AWAITED, NEVER, NEVER_AS_ONE, NOWHERE, NOWHERE_OF_ROLE

_NOWHERE = {NOWHERE: ""} | {listener: f" at a {role} listener" for role, listener in NOWHERE_OF_ROLE.items()}


def read(settings: Settings) -> tuple[Callable[[Account], str], str]:
    """Return what says an account's line, and as of when that is.

    Raises:
        PathsUnreadable: what the receiver wrote down cannot be read.
    """
    found = path_file.read(settings.receiver.data_dir / path_file.FILE_NAME)
    told: defaultdict[str, list[str]] = defaultdict(list)
    if found is not None:
        kept, wall_us = found
        roles = {listener.name: listener.role for listener in settings.listeners}
        for path in kept.paths():
            listener, heard_us = kept.listeners[path.listener], wall_us - path.age_us - path.gap_us
            told[path.account.upper()].append(_path(listener, roles.get(listener, ""), path.state, heard_us))

    def line(account: Account) -> str:
        stands = "; ".join(sorted(told[account.account.upper()])) or "not looked at yet"
        return f"{account.account:<16}  {stands if account.supervision else 'unsupervised'}  {account.name or ''}".rstrip()

    as_of = f"{clock.to_text(found[1])[:19]}Z" if found is not None else "never: no receiver has written its paths down here"
    return line, f"paths as of {as_of}"


def _path(listener: str, role: str, state: int, heard_us: int) -> str:
    if state in (AWAITED, NEVER, NEVER_AS_ONE):
        return ("not heard yet" if state == AWAITED else "NEVER SEEN") + _NOWHERE.get(listener, "")
    where = f"{listener} ({role})" if role else listener
    return f"{'alive' if state == ALIVE else 'LOST'} at {where}, last heard {clock.to_text(heard_us)[:19]}Z"
