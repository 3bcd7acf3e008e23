"""Completion in bash, zsh and fish: the script that does it, and the names of methods."""

import click
from click.shell_completion import CompletionItem, get_completion_class

from lora_compare.cli.terminal import Output, command

PROGRAM = "lora-compare"
VARIABLE = "_LORA_COMPARE_COMPLETE"

WAYS = {
    "bash": "lora-compare completion bash > "
    "~/.local/share/bash-completion/completions/lora-compare",
    "zsh": "lora-compare completion zsh > ~/.zfunc/_lora-compare  "
    "(with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc)",
    "fish": "lora-compare completion fish > ~/.config/fish/completions/lora-compare.fish",
}
"""How to install the script for good, by shell; the folder has to be there."""

NOW = {
    "bash": 'eval "$(lora-compare completion bash)"',
    "zsh": 'eval "$(lora-compare completion zsh)"',
    "fish": "lora-compare completion fish | source",
}
"""How to have completion in the shell that is open."""


@command("completion")
@click.argument("shell", type=click.Choice(list(WAYS)))
def completion(output: Output, shell: str) -> None:
    """Print the script that completes commands, options and names of methods in a shell.

    How to install it stands at its end.

    \b
    eval "$(lora-compare completion bash)"          bash, in the shell that is open
    eval "$(lora-compare completion zsh)"           zsh
    lora-compare completion fish | source           fish
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.cli import main

    maker = get_completion_class(shell)
    assert maker is not None, "click has all three"
    made = maker(main, {}, PROGRAM, VARIABLE)
    # Not made.source(): it starts bash to ask its version, and warns of one that is old.
    script = (made.source_template % made.source_vars()).strip()
    output.record({"shell": shell, "script": script, "install": WAYS[shell]})
    if not output.as_json:
        # The first line stays the first: zsh reads it.
        click.echo(f"{script}\n\n# Now:  {NOW[shell]}\n# Ever: {WAYS[shell]}")


def complete_methods(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return tfidf and the methods of params.yaml that start so; none where it cannot be read."""
    from lora_compare.errors import UserError
    from lora_compare.params import read_yaml
    from lora_compare.project.paths import TFIDF, Paths

    try:
        methods = read_yaml(Paths.here().params)["methods"]
        kinds = {str(name): f"trainable: {m['trainable']}" for name, m in methods.items()}
        kinds[TFIDF] = "TF-IDF, logistic regression"
    except (UserError, OSError, LookupError, TypeError, AttributeError):
        return []  # a message would stand in the middle of the line that is being typed
    return [
        CompletionItem(name, help=kind)
        for name, kind in kinds.items()
        if name.startswith(incomplete)
    ]
