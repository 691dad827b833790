"""On what kind of file system a directory is."""

import re
from pathlib import Path

_NETWORK = re.compile(
    r"nfs4?|cifs|smb3|smbfs|ncpfs|afs|ceph|glusterfs|lustre|gpfs|beegfs|orangefs|pvfs2|ocfs2|gfs2|davfs|panfs|wekafs"
    # Those that run in user space.
    r"|fuse\.(sshfs|s3fs|gcsfuse|rclone|glusterfs|ceph|goofys|davfs2|mount-s3|juicefs|beegfs)"
)
_MOUNT_TABLE = Path("/proc/self/mountinfo")


def network_file_system(directory: Path, mount_table: Path = _MOUNT_TABLE) -> str | None:
    """The type of the network file system that a directory is on; None where it is local, or where nothing tells.

    Args:
        directory: need not exist; the nearest parent that does is looked at.
        mount_table: in the form of /proc/self/mountinfo (proc(5)).
    """
    try:
        table = mount_table.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    path = directory.resolve()
    found: tuple[int, str] = (-1, "")
    for line in table.splitlines():
        mount, separator, kind = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(_unescape(fields[4]))
        # Of two mounts on one place the later one is seen.
        if path.is_relative_to(point) and len(point.parts) >= found[0]:
            found = (len(point.parts), kind.split(" ")[0])
    kind = found[1]
    return kind if _NETWORK.fullmatch(kind) else None


def _unescape(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


__all__ = ["network_file_system"]
