"""User and group ids of `user[:group]`, by a file system's own passwd and group files."""

from __future__ import annotations

from ci.engine.errors import FieldError

from .tree import Tree


def owner_ids(owner: str, tree: Tree, within: str) -> tuple[int, int]:
    """User and group ids of `user[:group]`; a lone number is its own group. Raises FieldError."""
    if not owner:
        return 0, 0
    user, _, group = owner.partition(":")
    if user.isdigit() and (not group or group.isdigit()):
        return int(user), int(group or user)
    passwd, groups = tree.text("etc/passwd"), tree.text("etc/group")
    if passwd is None:
        if within == "container":
            raise FieldError(
                f"failed to resolve ownership for {owner}: open /etc/passwd: stat /etc/passwd: "
                "no such file or directory",
                lazy=True,
            )
        raise FieldError(f"failed to parse ownership {owner}: open /etc/passwd: no such file or directory", lazy=True)
    return names_to_ids(owner, passwd, groups or "")


def names_to_ids(owner: str, passwd: str, groups: str) -> tuple[int, int]:
    """Ids of `user[:group]` by the text of /etc/passwd and /etc/group; without a group the user's number is the
    group's too, whatever group the user is in. Raises FieldError."""
    user, _, group = owner.partition(":")
    uid = int(user) if user.isdigit() else -1
    if uid < 0:
        known = {p[0]: int(p[2]) for p in (line.split(":") for line in passwd.splitlines()) if len(p) > 3}
        if user not in known:
            raise FieldError(f"failed to resolve ownership for {owner}: find uid: no such user: {user}", lazy=True)
        uid = known[user]
    gid = int(group) if group.isdigit() else uid
    if group and not group.isdigit():
        known = {p[0]: int(p[2]) for p in (line.split(":") for line in groups.splitlines()) if len(p) > 2}
        if group not in known:
            raise FieldError(f"failed to resolve ownership for {owner}: find gid: no such group: {group}", lazy=True)
        gid = known[group]
    return uid, gid
