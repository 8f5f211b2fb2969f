"""``mmclipdis completion``: what a shell needs to complete subcommands, options, model names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EPILOG = """\b
Examples:
  mmclipdis completion bash > ~/.local/share/bash-completion/completions/mmclipdis
  mmclipdis completion fish > ~/.config/fish/completions/mmclipdis.fish
  eval "$(mmclipdis completion zsh)"      (in ~/.zshrc)
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes this command in a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    root = context.find_root().command
    click.echo(kind(root, {}, "mmclipdis", "_MMCLIPDIS_COMPLETE").source())
