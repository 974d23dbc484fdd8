"""What `_target_` names: a class or function of any package, called with what stands beside it.

To import is to run code, so only what was typed or lies in one's own `conf/` may come here, never
what a checkpoint or somebody else's folder says. What is built is Hydra's `instantiate`; here its
arguments are held against the signature before there is any work.
"""

import inspect
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from fmnist_pl.options.messages import UserError

TARGET = "_target_"
KEYWORDS = {TARGET, "_args_", "_convert_", "_partial_", "_recursive_"}  # Hydra's


def locate(path: Any, option: str) -> Any:
    """The class or function with a dotted path, imported.

    Raises:
        UserError: there is none, or its module cannot be imported; opens with the option.
    """
    try:
        found = resolve_name(str(path))
    except Exception as error:  # whatever a module raises while it is imported
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{option}: {path} cannot be imported ({reason}). It must be the dotted path of a "
            "class or function on Python's path, as torch.optim.SGD."
        ) from None
    if not callable(found):
        raise UserError(f"{option}: {path} is no class or function.")
    return found


def build(spec: Mapping[str, Any], option: str, *args: Any, **supplied: Any) -> Any:
    """What a `_target_` and the arguments beside it make.

    Args:
        spec: with the key `_target_`.
        option: where it stands, for messages.
        args: come first.
        supplied: arguments that it gets if it names them and `spec` does not give them.

    Raises:
        UserError: as of `locate`; an argument is unknown, missing, of a wrong type or refused.
    """
    if TARGET not in spec:
        raise UserError(f"{option}: lacks {TARGET}, the dotted path of a class or function.")
    path = spec[TARGET]
    parameters = signature(locate(path, option))
    taken = {k: v for k, v in supplied.items() if k in parameters and k not in spec}
    check_arguments(spec, option, len(args), taken)
    try:
        return instantiate(dict(spec), *args, _convert_="all", **taken)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise UserError(f"{option}: {path}: {str(cause).strip().splitlines()[0]}") from cause


def signature(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function by name, with their types, as far as they say."""
    parameters = dict(inspect.signature(target).parameters)
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # names that are only imported for type checkers
        hints = {}
    return {name: one.replace(annotation=hints.get(name, Any)) for name, one in parameters.items()}


def check_arguments(
    spec: Mapping[str, Any], option: str, positional: int, supplied: Mapping[str, Any]
) -> None:
    """Hold what stands beside a `_target_` against its signature; what is nested in it, too.

    Raises:
        UserError: an argument that is unknown, missing or of another type than is declared.
    """
    path = spec[TARGET]
    parameters = signature(locate(path, option))
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name: one for name, one in parameters.items() if one.kind not in variable}
    named = dict(list(named.items())[positional:])
    takes_all = len(named) < len(parameters) - positional and any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()
    )
    given = {name: value for name, value in spec.items() if name not in KEYWORDS}
    legal = f"It takes {', '.join(named) or 'none'}."
    for name, value in given.items():
        if name not in named and not takes_all:
            raise UserError(f"{option}.{name}: {path} has no such argument. {legal}")
        if isinstance(value, Mapping) and TARGET in value:
            locate(value[TARGET], f"{option}.{name}")
        elif name in named and not fits(value, annotation := named[name].annotation):
            raise UserError(f"{option}.{name}={value}: {path} takes {in_words(annotation)}.")
    for name, one in named.items():
        if one.default is one.empty and name not in {*given, *supplied}:
            raise UserError(f"{option}: {path} lacks its argument {name}. {legal}")


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value may be one of a type; of types that YAML cannot write, any value."""
    kinds, kind = get_args(annotation), get_origin(annotation) or annotation
    if kind in (Union, UnionType):
        return any(fits(value, one) for one in kinds)
    if kind is Literal:
        return value in kinds
    if kind is float:
        return type(value) in (int, float)
    if kind in (bool, int, str, NoneType, None):
        return type(value) is (kind or NoneType)
    if kind in (list, tuple, Sequence):
        return isinstance(value, list)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping)
    # YAML writes no tensor; of a path, a time, a choice, only the class itself knows what it takes.
    return getattr(kind, "__module__", "") != "torch"


def in_words(annotation: Any) -> str:
    """A type as one would say it, as in `float or Tensor`."""
    if kinds := get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ():
        return " or ".join(map(in_words, kinds))
    return "null" if annotation is NoneType else str(getattr(annotation, "__name__", annotation))


def targets_in(spec: Any) -> set[str]:
    """All that a part of a configuration would have imported, however deep it stands."""
    if isinstance(spec, Mapping):
        own = {str(spec[TARGET])} if TARGET in spec else set()
        return own.union(*map(targets_in, spec.values()))
    return set[str]().union(*map(targets_in, spec)) if isinstance(spec, list | tuple) else set()
