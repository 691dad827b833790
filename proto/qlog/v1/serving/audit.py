"""Audit lines: who called what, from where, and how it ended."""

import grpc
import structlog

from qlog.v1.serving.access import OPEN, Role, RoleTable
from qlog.v1.serving.observing import Call

_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)


class Audit:
    """An observer that logs calls.

    Calls that change something (those that no mere reader may make) are told at the level `info`, other calls at
    `debug`; refused ones are warnings, and failures of the server's own are errors, whatever was called.

    Args:
        roles: which roles each method takes.
    """

    def __init__(self, roles: RoleTable) -> None:
        self._quiet = {method for method, wanted in roles.items() if wanted is OPEN or Role.READER in wanted}
        self._log = structlog.stdlib.get_logger("qlog.audit")

    def began(self, method: str) -> None:
        """Told when it is over."""

    def ended(self, call: Call) -> None:
        """One line."""
        if call.code in _REFUSED:
            log = self._log.warning
        elif call.code in _BROKEN:
            log = self._log.error
        else:
            log = self._log.debug if call.method in self._quiet else self._log.info
        optional = {
            "certificate": call.certificate,
            "subjects": list(call.subjects),
            "filter": call.filter,
            "events": call.events,
            "trace": call.trace,
        }
        log(
            "call",
            method=call.method.rpartition("/")[2],
            who=call.who,
            roles=sorted(call.roles),
            peer=call.peer,
            code=call.code.name,
            duration_ms=round(call.duration_s * 1000, 3),
            **{key: value for key, value in optional.items() if value},
        )


__all__ = ["Audit"]
