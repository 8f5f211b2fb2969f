"""``mmclipdis models``: which models have a name, and what each has to download."""

from __future__ import annotations

import dataclasses
import json

import click

EPILOG = """\b
Examples:
  mmclipdis models --task segment
  mmclipdis models --json | jq -r '.[] | select(.offline) | .name'
"""


@click.command(epilog=EPILOG, short_help="List the models by name.")
@click.option("--task", type=click.Choice(["segment", "detect", "tag"]), help="Only these.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, for scripts.")
def models(task: str | None, as_json: bool) -> None:
    """List the models by name: task, size, licence of the weights, what has to be downloaded.

    Their names are for --model. Those that need no download come with the package, and are tiny:
    they know the shapes of the examples and little else.
    """
    from mmclipdis.apis import zoo

    found = zoo.models(task)
    if not as_json:
        click.echo(zoo.as_table(found))
        return
    listed = [{**dataclasses.asdict(info), "offline": info.offline} for info in found]
    click.echo(json.dumps(listed, indent=2, default=str))
