"""Completion of programs, flags and their choices in bash, zsh and fish, made from the declarations.

bash: eval "$(grantex-beam config --completion=bash)", in ~/.bashrc; the others alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.flags.parameter import Parameter
from pipelines.programs import PROGRAMS

PLACES = ("FILE", "DIRECTORY")


def bash(parameters: Mapping[str, Parameter]) -> str:
    """`=` ends a word there, so a flag, its `=` and the value are three."""
    cases = [
        f'        {each.flag}) COMPREPLY=($(compgen -W "{" ".join(each.choices)}" -- "$word"));;'
        for each in parameters.values()
        if each.choices
    ]
    files = "|".join(each.flag for each in parameters.values() if each.placeholder in PLACES)
    flags = " ".join(each.flag for each in parameters.values())
    return "\n".join(
        [
            "_grantex_beam() {",
            '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} flag=""',
            '    if [[ $word == "=" ]]; then flag=$before; word=""',
            '    elif [[ $before == "=" ]]; then flag=${COMP_WORDS[COMP_CWORD-2]}; fi',
            "    COMPREPLY=()",
            '    case "$flag" in',
            *cases,
            f'        {files}) COMPREPLY=($(compgen -f -- "$word"));;',
            '        "")',
            "            if [[ $word == -* ]]; then",
            f'                COMPREPLY=($(compgen -S = -W "{flags}" -- "$word"))',
            "                compopt -o nospace 2>/dev/null",
            "            elif [[ $COMP_CWORD == 1 ]]; then",
            f'                COMPREPLY=($(compgen -W "{" ".join(PROGRAMS)}" -- "$word"))',
            "            fi;;",
            "    esac",
            "}",
            "complete -F _grantex_beam grantex-beam",
            "",
        ]
    )


def zsh(parameters: Mapping[str, Parameter]) -> str:
    """Each flag with its help; choices and files behind it."""
    lines = []
    for each in parameters.values():
        values = f"({' '.join(each.choices)})" if each.choices else ""
        values = "_files" if each.placeholder in PLACES else values
        help = each.help.translate(str.maketrans("[]:", "();", "'"))
        lines.append(f"    '{'*' if each.repeatable else ''}{each.flag}=[{help}]:{each.name}:{values}' \\")
    programs = " ".join(PROGRAMS)
    head = ["#compdef grantex-beam", "_grantex_beam() {", "  _arguments \\"]
    return "\n".join(
        [*head, *lines, f"    '1:program:({programs})'", "}", "compdef _grantex_beam grantex-beam", ""]
    )


def fish(parameters: Mapping[str, Parameter]) -> str:
    """Each flag with its help; choices behind it."""

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = [f"complete -c grantex-beam -f -n __fish_use_subcommand -a {quoted(' '.join(PROGRAMS))}"]
    for each in parameters.values():
        values = f" -x -a {quoted(' '.join(each.choices))}" if each.choices else " -r"
        values += " -F" if each.placeholder in PLACES else ""
        lines.append(f"complete -c grantex-beam -l {each.name} -d {quoted(each.help)}{values}")
    return "\n".join([*lines, ""])


SHELLS: Mapping[str, Callable[[Mapping[str, Parameter]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
