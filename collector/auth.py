"""Which role each call of the collector takes. A test keeps it total: a call without a row is for administrators."""

from typing import Final

from qlog.v1.serving.access import ADMINS, COMMON_ROLES, READERS, WRITERS, RoleTable

_SERVICE = "/qlog.v1.CollectorService/"

ROLES: Final[RoleTable] = {
    **COMMON_ROLES,
    f"{_SERVICE}AppendExperiment": WRITERS,
    f"{_SERVICE}GetAppendStatus": WRITERS,
    f"{_SERVICE}ListExperiments": READERS,
    f"{_SERVICE}GetExperiment": READERS,
    f"{_SERVICE}BatchGetExperiments": READERS,
    f"{_SERVICE}CompareExperiments": READERS,
    f"{_SERVICE}WatchExperiments": READERS,
    f"{_SERVICE}ExportExperiments": READERS,
    f"{_SERVICE}GetStoreInfo": READERS,
    f"{_SERVICE}ImportExperiments": ADMINS,
    f"{_SERVICE}AnnotateExperiment": ADMINS,
    f"{_SERVICE}CheckStore": ADMINS,
    f"{_SERVICE}BackupStore": ADMINS,
}

__all__ = ["ROLES"]
