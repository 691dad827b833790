"""Who may call what of the quantizer."""

from google.longrunning import operations_pb2
from qlog.v1 import quantizer_pb2
from qlog.v1.serving.access import COMMON_ROLES, READERS, WRITERS, Role

from quantizer.auth import ROLES


def test_every_call_has_its_role() -> None:
    """The table is total over the services that the quantizer has, and names no others."""
    services = (
        quantizer_pb2.DESCRIPTOR.services_by_name["QuantizerService"],
        operations_pb2.DESCRIPTOR.services_by_name["Operations"],
    )
    calls = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert set(ROLES) == calls | set(COMMON_ROLES)


def test_who_only_reads_changes_nothing() -> None:
    """A reader may make no call that begins or ends a job; a writer and an administrator may make all."""
    begins_or_ends = {name for name in ROLES if name.rpartition("/")[2].startswith(("Submit", "Cancel", "Delete"))}
    assert len(begins_or_ends) == 3
    for name, roles in ROLES.items():
        if name in COMMON_ROLES:
            continue
        assert roles is not None
        assert (Role.READER in roles) == (name not in begins_or_ends)
        assert roles in (WRITERS, READERS | WRITERS)
