"""Sphinx's settings for the documentation: `make docs`. No network is needed."""  # noqa: INP001 - not a module

import re
from collections.abc import Iterator
from enum import EnumType
from types import NoneType

import attrs
import click
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

import nxotp_async
from nxotp_async.cli import nxotp

project = "nxotp_async"
author = "The nxotp_async authors"
copyright = author  # noqa: A001 - Sphinx's name for it
version = release = nxotp_async.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!nxotp_async\.)\w+\..*"),  # names of other libraries: their inventories are on the network
    ("any", r"(\w*Error|contextlib\..*)"),
    ("py:class", r".*\._\w+"),  # a private type in a signature
]

# ---------------------------------------------------------------------------------------------- pages

myst_heading_anchors = 3
html_theme = "furo"
html_title = f"nxotp_async {release}"
html_copy_source = False
html_use_index = html_domain_indices = False  # the search also finds names
html_static_path = ["_static"]
html_css_files = ["custom.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "  # of a session, copy what is typed: neither prompts nor output
copybutton_prompt_is_regexp = True

# ---------------------------------------------------------------------------------------------- docstrings

default_role = "any"  # `OtpClient` in a docstring is a link
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True  # show defaults as they are in the source
python_use_unqualified_type_names = True
maximum_signature_line_length = 110
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # show attributes as a list, like parameters
# Otherwise napoleon takes the text before the first colon of an attribute's docstring for its type.
GoogleDocstring._parse_attribute_docstring = lambda self: self._dedent(self._consume_to_end())  # noqa: SLF001

_HELP_WIDTH = 88  # characters that fit on the page


def setup(app: Sphinx) -> None:
    """Connect the functions below, for which Sphinx has no settings."""
    app.connect("source-read", _add_help)
    app.connect("autodoc-process-docstring", _mark_examples, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", _simplify_signature)


def _add_help(_: Sphinx, page: str, source: list[str]) -> None:
    """Append the help of every command to the page about the command line."""
    if page == "reference/cli":
        source[0] += "\n".join(_help(nxotp, "nxotp"))


def _help(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, **{**nxotp.context_settings, "terminal_width": _HELP_WIDTH})
    yield f"\n## {name}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from _help(child, f"{name} {child.name}")


def _mark_examples(_: Sphinx, _what: str, _name: str, _subject: object, _options: object, lines: list[str]) -> None:
    """Render an indented block between two paragraphs as an example, not as a quotation."""
    for number in range(len(lines) - 2, 0, -1):
        above, here, below = lines[number - 1 : number + 2]
        if above[:1].strip() and not here and below.startswith("    "):
            lines[number:number] = ["", "::"]


def _simplify_signature(
    _: Sphinx, what: str, _name: str, subject: object, _options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Hide the arguments of exceptions, enumerations and protocols, which users do not call; show attrs' defaults."""
    if what == "exception" or isinstance(subject, EnumType) or getattr(subject, "_is_protocol", False):
        return "", None
    if signature and isinstance(subject, type) and attrs.has(subject):
        defaults = {field.name: field.default for field in attrs.fields(subject)}
        signature = re.sub(r"attr_dict\['(\w+)'\]\.default", lambda name: _default(defaults[name[1]]), signature)
        signature = signature.replace("NOTHING", "...")  # a factory makes the default
    return signature, returns


def _default(default: object) -> str:
    return repr(default) if type(default) in (int, float, str, bool, NoneType) else "..."
