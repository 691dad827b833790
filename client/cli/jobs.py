"""`qlog jobs`."""

import click

from client.cli.options import answer, settings_of, shared_options
from client.job_document import jobs_output
from client.settings import open_quantizer

_EPILOG = """\b
Examples:
  qlog jobs
  qlog --quantizer gpu1:50552 jobs --format json
"""


@click.command("jobs", epilog=_EPILOG)
@shared_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the jobs of a quantizer."""
    settings = settings_of(ctx)
    with open_quantizer(settings) as api:
        jobs = tuple(api.jobs())
    answer(jobs_output(jobs, settings.quantizer), settings)
