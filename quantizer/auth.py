"""Which role each call of the quantizer takes. A test keeps it total: a call without a row is for administrators."""

from typing import Final

from qlog.v1.serving.access import COMMON_ROLES, READERS, WRITERS, RoleTable

_SERVICE, _OPERATIONS = "/qlog.v1.QuantizerService/", "/google.longrunning.Operations/"

# Who submits jobs follows them too.
_BOTH = READERS | WRITERS

ROLES: Final[RoleTable] = {
    **COMMON_ROLES,
    f"{_SERVICE}SubmitExperiment": WRITERS,
    f"{_SERVICE}WatchExperiment": _BOTH,
    f"{_SERVICE}ListDevices": _BOTH,
    f"{_SERVICE}ListModels": _BOTH,
    f"{_OPERATIONS}ListOperations": _BOTH,
    f"{_OPERATIONS}GetOperation": _BOTH,
    f"{_OPERATIONS}WaitOperation": _BOTH,
    f"{_OPERATIONS}CancelOperation": WRITERS,
    f"{_OPERATIONS}DeleteOperation": WRITERS,
}

__all__ = ["ROLES"]
