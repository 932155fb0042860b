"""The `embedsvc` command. Each command group is one file, imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points

import click

# name -> (module:function, the line shown by --help); importing them all would cost a second.
_COMMANDS = {
    "encode": ("embedsvc.cli.encode:encode", "Encode the lines of a file into vectors (.npy)."),
    "calibrate": ("embedsvc.cli.calibrate:calibrate", "Learn the scale of a model's int8 vectors."),
    "index": ("embedsvc.cli.index:index", "Add documents from a file to a collection."),
    "search": ("embedsvc.cli.search:search", "Search a collection in any language."),
    "collections": (
        "embedsvc.cli.collections:collections",
        "List, describe, export, back up, re-embed … collections.",
    ),
    "mine": ("embedsvc.cli.mine:mine", "Find translation pairs in two monolingual files."),
    "align": ("embedsvc.cli.align:align", "Align the sentences of two documents that are translations."),
    "score": ("embedsvc.cli.score:score", "Score or filter the pairs of a bitext."),
    "serve": ("embedsvc.cli.serve:serve", "Start the HTTP server."),
    "keys": ("embedsvc.cli.keys:keys", "Make, list and revoke API keys of the server."),
    "train": ("", "Train an encoder from a recipe (needs the [train] extra)."),
    "negatives": ("", "Find hard negatives in parallel data, for training."),
    "evaluate": ("", "Evaluate models on Tatoeba, xsim and more."),
    "export": ("", "Convert a model folder (ONNX, quantised or plain float32)."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        target, _ = _COMMANDS[cmd_name]
        if target:
            module, function = target.split(":")
            command: click.Command = getattr(import_module(module), function)
            return command
        for entry in entry_points(group="embedsvc.commands", name=cmd_name):
            loaded: click.Command = entry.load()
            return loaded
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], _COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="embedsvc")
def cli() -> None:
    """Multilingual embeddings: encode, search and mine across languages."""


def main() -> None:
    """Run the command line; a known error is one line on standard error and exit code 1."""
    from embedsvc.errors import EmbedsvcError

    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EmbedsvcError as error:
        _fail(error.message, 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except MemoryError:
        _fail("not enough memory", 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"embedsvc: {message}", err=True)
    sys.exit(code)
