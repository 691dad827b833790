"""`qlog cancel`."""

import click

from client.cli.options import answer, settings_of, shared_options
from client.errors import RefusedError
from client.job_document import job_output
from client.settings import open_quantizer

_EPILOG = """\b
Examples:
  qlog cancel 0199c0de
  qlog cancel operations/0199c0de-7a3b-7c11-9a52-3f1c8d0e4b67
"""


@click.command("cancel", epilog=_EPILOG)
@click.argument("job", metavar="JOB")
@shared_options
@click.pass_context
def command(ctx: click.Context, *, job: str) -> None:
    """Cancel a job that waits or runs.

    JOB is its experiment's id, a unique prefix of it, or the name of its operation. A job that runs ends a little
    later; its experiment is recorded as CANCELLED.
    """
    settings = settings_of(ctx)
    with open_quantizer(settings) as api:
        found = api.find_job(job)
        if found.done:
            raise RefusedError(f"job {found.name} has ended already: {found.state}")
        api.cancel(found.name)
        found = api.job(found.name)
    answer(job_output(found), settings)
