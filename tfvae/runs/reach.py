# SPDX-License-Identifier: Apache-2.0
"""Which bindings of a gin configuration can act, and why others can not.

gin looks a binding up when something calls its function by way of gin. So one
has no effect if no reference leads to the function, if nothing enters its
scope, or if the call passes the argument itself; gin accepts all three without
a word. References are followed here from the functions that Python code
calls, with what `typed_gin.uses` declares about the arguments of calls.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import gin

from tfvae import typed_gin
from tfvae.runs import literals
from tfvae.runs.gin_text import Binding, Macro, Parsed, Reference, references

# Packages whose code is known not to enter scopes, or to call what it gets in
# other ways than declared.
_OURS = ("tfvae", "benchmarks", "papers")
_KNOWN = (*_OURS, "gin", "keras")
_SIMILAR = 0.88  # EPOCS and EPOCHS: 0.91; ENCODER and DECODER: 0.86
_Scope = tuple[str, ...]


class Configurable(Protocol):
    """What gin knows about a registered function or class."""

    @property
    def name(self) -> str: ...

    @property
    def selector(self) -> str: ...

    @property
    def wrapped(self) -> Callable[..., Any]: ...

    @property
    def wrapper(self) -> Callable[..., Any]: ...


class Registry(Protocol):
    """The functions and classes that are registered with gin."""

    def find(self, selector: str) -> Configurable | None:
        """Returns one by its name, or the end of its dotted path."""

    def all(self) -> Iterable[Configurable]:
        """Returns all of them."""


class Reach:
    """What the functions of a run reach in a configuration.

    Attributes:
      acting: Names of the bindings that can act.
      missing: Parameters without a default value that nothing binds.
      wrong: Messages for values of types that their parameters do not take.
      passed: By selector of what is called, the arguments of a call and where
        they are from, None if they are not known.
      is_certain: Whether all code that the configuration names is known.
    """

    def __init__(
        self, parsed: Parsed, registry: Registry, function: str | None = None
    ) -> None:
        """Follows the references.

        Args:
          parsed: The configuration.
          registry: The functions and classes that it may name.
          function: Name of the function that is called; None for any of
            those that Python code calls.
        """
        self._parsed = parsed
        self._registry = registry
        self._function = function
        self._macros = {
            one.name: one for one in parsed.bindings if one.is_macro
        }
        self._bound: dict[str, dict[_Scope, dict[str, Binding]]] = {}
        for one in parsed.bindings:
            if not one.is_macro:
                scopes = self._bound.setdefault(self._id(one.selector), {})
                scopes.setdefault(one.scope, {})[one.parameter] = one
        self._mentioned = [
            one for each in parsed.bindings for one in references(each.value)
        ]
        self._referenced = {
            self._id(one.name)
            for one in self._mentioned
            if isinstance(one, Reference)
        }
        self._scopes = {
            one.scope
            for one in self._mentioned
            if isinstance(one, Reference) and one.scope
        }
        self.acting: set[str] = set()
        self.missing: list[str] = []
        self.wrong: dict[str, str] = {}
        self.passed: dict[str, Mapping[str, str] | None] = {}
        self._passed: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._visited: dict[str, set[_Scope]] = {}
        self._memo: set[Any] = set()
        self._defaults: dict[str, str] = {}
        self._built: dict[str, tuple[str, dict[str, str]]] = {}
        named = {*self._bound, *self._referenced}
        packages = [one.partition(".")[0] for one in parsed.imports]
        packages += [_package(registry.find(one)) for one in named]
        self.is_certain = set(packages) <= set(_KNOWN)
        for root in self._roots():
            self._visit(root.selector, (), self._of_callers(root))
        for name in self._bound:
            if registry.find(name) is None:  # Of another version, say.
                self._visit(name, (), None)

    def _id(self, selector: str) -> str:
        found = self._registry.find(selector)
        return selector if found is None else found.selector

    def _roots(self) -> Iterator[Configurable]:
        """Yields what Python code may call: of ours, what `function` calls."""
        called = None
        if self._function is not None:
            start = self._registry.find(self._function)
            called = set() if start is None else _called(start.wrapped)
        for one in self._registry.all():
            if called is None or _package(one) not in _OURS:
                if _is_called_directly(one):
                    yield one
            elif inspect.unwrap(one.wrapped) in called:
                yield one

    def _of_callers(self, root: Configurable) -> dict[str, str] | None:
        """Returns the arguments that the callers of a function pass."""
        if not typed_gin.is_configured(root.wrapped):
            return None
        return {
            name: "one of its own"
            for name, one in inspect.signature(root.wrapped).parameters.items()
            if one.kind is not inspect.Parameter.KEYWORD_ONLY
        }

    def _effective(self, selector: str, scope: _Scope) -> dict[str, Binding]:
        """Returns the bindings of a call in a scope, by parameter."""
        scopes = self._bound.get(selector, {})
        found: dict[str, Binding] = {}
        for length in range(len(scope) + 1):
            found.update(scopes.get(scope[:length], {}))
        return found

    def _visit(
        self,
        selector: str,
        scope: _Scope,
        passed: Mapping[str, str] | None,
        *,
        may_be: bool = False,
    ) -> None:
        """Follows what the bindings of a call refer to.

        Args:
          selector: The called function or class.
          scope: The scope of the call.
          passed: Arguments of the call, and where they are from; None if they
            are not known.
          may_be: Whether it is not known if there is such a call.
        """
        key = selector, scope, None if passed is None else tuple(passed), may_be
        if key in self._memo:
            return
        self._memo.add(key)
        self._visited.setdefault(selector, set()).add(scope)
        self.passed[selector] = passed
        found = self._registry.find(selector)
        bound = self._effective(selector, scope)
        hints = {} if found is None else _hints(found)
        for name, binding in bound.items():
            if passed and name in passed:
                self._passed.setdefault(binding.name, passed[name])
                continue
            self.acting.add(binding.name)
            self._values[_unscoped(binding)] = binding.value
            call = None
            if found is not None:
                call = typed_gin.uses_of(found.wrapped).passes.get(name)
            self._follow(binding.value, scope, scope, call)
            if name in hints:
                self._check_type(binding, hints[name], found)
        if found is not None:
            self._note_rest(found, bound, passed, may_be)

    def _follow(
        self,
        value: Any,
        scope: _Scope,
        call_scope: _Scope,
        call: typed_gin.Arguments | None,
    ) -> None:
        """Follows the references in a value.

        Args:
          value: The value.
          scope: Scope of the function that gets it.
          call_scope: Scope in which gin evaluates references with `()`.
          call: Arguments that the function passes to the value.
        """
        if isinstance(value, Macro):
            binding = self._macros.get(value.name)
            key = value, scope, id(call)
            if binding is not None and key not in self._memo:
                self._memo.add(key)  # A macro may be bound to itself.
                self.acting.add(binding.name)
                inner = tuple(value.name.split("/"))
                self._follow(binding.value, scope, inner, call)
        elif isinstance(value, Reference):
            selector = self._id(value.name)
            if value.is_call:
                self._visit(selector, value.scope or call_scope, {})
                return
            found = self._registry.find(selector)
            passed = None
            if call is not None and found is not None:
                passed = call.of(found.wrapped)
            # Whatever gets it may call it later, in a scope of its own.
            scopes = [value.scope] if value.scope else [scope, *self._scopes]
            for entered in scopes:
                may_be = entered != scopes[0]
                self._visit(selector, entered, passed, may_be=may_be)
        else:
            for one in references(value):
                self._follow(one, scope, call_scope, None)

    def _check_type(
        self, binding: Binding, hint: Any, found: Configurable | None
    ) -> None:
        value = binding.value
        if isinstance(value, Macro) and value.name in self._macros:
            value = self._macros[value.name].value
        if found is None or literals.fits(value, hint):
            return
        parameter = inspect.signature(found.wrapped).parameters
        allowed = parameter[binding.parameter].annotation
        self.wrong[binding.name] = (
            f"`{binding.name}` must be of type {allowed}, got {value!r}"
        )

    def _note_rest(
        self,
        found: Configurable,
        bound: Mapping[str, Binding],
        passed: Mapping[str, str] | None,
        may_be: bool,
    ) -> None:
        """Notes parameters without bindings, and what gin does not build."""
        declared = typed_gin.uses_of(found.wrapped)
        for target, call in declared.builds.items():
            names = call.of(target) or {}
            self._built[self._registered(target)] = found.name, names
        if _package(found) not in _OURS:
            return
        for name, one in inspect.signature(found.wrapped).parameters.items():
            if name in bound or (passed and name in passed):
                continue
            if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                continue
            if one.default is one.empty or one.default is gin.REQUIRED:
                whole = f"{found.name}.{name}"
                is_known = passed is not None and not may_be
                if is_known and whole not in self.missing:
                    self.missing.append(whole)
                continue
            self._note_default(found, name, one.default, declared.defaults)

    def _note_default(
        self,
        found: Configurable,
        name: str,
        default: Any,
        declared: Mapping[str, Callable[..., Any]],
    ) -> None:
        """Notes that a default value is used, which has no bindings."""
        target, parentheses = default, ""
        if default is None:
            target, parentheses = declared.get(name), "()"
        elif not callable(default) or not hasattr(default, "__name__"):
            target, parentheses = type(default), "()"
        selector = self._registered(target)
        used = self._registry.find(selector) if selector else None
        if used is None or selector in self._defaults:
            return
        text = f"{found.name}.{name} = @{used.name}{parentheses}"
        self._defaults[selector] = text
        self._note_rest(used, {}, None, True)

    def _registered(self, target: Any) -> str:
        """Returns the selector of a registered function or class, or ""."""
        for one in self._registry.all():
            if one.wrapped is target or one.wrapper is target:
                return one.selector
        return ""

    # Why bindings do not act.

    @property
    def idle(self) -> list[str]:
        """The names of the bindings that can not act."""
        names = (one.name for one in self._parsed.bindings)
        return [name for name in names if name not in self.acting]

    def why_idle(self, name: str) -> str:
        """Returns why a binding can not act, as a clause."""
        return self._reason(self._binding(name))

    def _binding(self, name: str) -> Binding:
        (found,) = (one for one in self._parsed.bindings if one.name == name)
        return found

    def is_mistake(self, name: str) -> bool:
        """Returns whether a binding that does not act could not in any run.

        Those that another command, or another choice of a model, may use are
        no mistakes in a file.
        """
        binding = self._binding(name)
        if binding.is_macro:
            return self._similar(name) is not None
        selector = self._id(binding.selector)
        return (
            name in self._passed
            or self._is_scope_unknown(binding)
            or self._function is not None
            and selector not in {*self._referenced, *self._visited}
            and (selector in self._defaults or selector in self._built)
        )

    def is_used_macro(self, name: str) -> bool:
        """Returns whether a name is that of a macro that a binding uses."""
        return Macro(name) in self._mentioned

    def _is_scope_unknown(self, binding: Binding) -> bool:
        entered = {*self._scopes, *(tuple(m.split("/")) for m in self._macros)}
        return (
            self.is_certain
            and bool(binding.scope)
            and not any(
                one[: len(binding.scope)] == binding.scope for one in entered
            )
        )

    def _similar(self, name: str) -> str | None:
        """Returns the macro in use that a macro without use is likely to be."""
        if self.is_used_macro(name):
            return None
        used = {one.name for one in self._mentioned if isinstance(one, Macro)}
        near = [one for one in sorted(used) if is_likely_typo(name, one)]
        return near[0] if near else None

    def _reason(self, binding: Binding) -> str:
        name = binding.name
        if binding.is_macro:
            near = self._similar(name)
            if near:
                return f"no binding uses this macro; did you mean `{near}`?"
            if not self.is_used_macro(name):
                return "no binding uses this macro"
            return "only bindings without effect use this macro"
        if name in self._passed:
            return f"the run passes {self._passed[name]}, which acts instead"
        if self._is_scope_unknown(binding):
            entered = sorted("/".join(one) for one in self._scopes)
            return (
                f"nothing enters the scope {'/'.join(binding.scope)!r} (scopes "
                f"of references: {', '.join(map(repr, entered)) or 'none'}); "
                f"without a scope it is `{_unscoped(binding)}`"
            )
        return self._reason_of_function(binding)

    def _reason_of_function(self, binding: Binding) -> str:
        selector, short = self._id(binding.selector), binding.selector
        found = self._registry.find(selector)
        if selector in self._visited:
            if binding.scope:
                return f"nothing refers to `@{'/'.join(binding.scope)}/{short}`"
            return "bindings in the scopes of all its calls override it"
        if selector in self._built:
            builder, names = self._built[selector]
            if binding.parameter in names:
                return f"the run passes {names[binding.parameter]} instead"
            return f"`{builder}` builds {short} without it"
        if selector in self._defaults:
            return f"bind `{self._defaults[selector]}` too"
        if found is not None and typed_gin.is_configured(found.wrapped):
            return f"`{self._function or 'Python'}` does not call `{short}`"
        for one in self._registry.all():
            if found and found.wrapped in typed_gin.uses_of(one.wrapped).builds:
                return (
                    f"only `{one.name}` builds {short}, and nothing in this "
                    f"run refers to `@{one.name}`"
                )
        reason = f"nothing in this run refers to `@{short}`"
        slot = None if found is None else self._slot(found, {selector})
        return f"{reason}; {slot}" if slot else reason

    def _slot(self, found: Configurable, seen: set[str]) -> str | None:
        """Returns a parameter that takes something, and what it is now."""
        built = {
            target
            for one in self._registry.all()
            for target in typed_gin.uses_of(one.wrapped).builds
        }
        takers = [x for x in self._registry.all() if x.wrapped not in built]
        slots = list(_slots(found, takers))
        here = [
            f"{taker.name}.{name}"
            for taker, name in slots
            if taker.selector in self._visited
        ]
        for whole in here:
            if whole in self._values:
                return f"`{whole}`, which takes it, is {self._values[whole]!r}"
        for taker, _ in slots:
            if taker.selector in {*seen, *self._visited}:
                continue
            outer = self._slot(taker, {*seen, taker.selector})
            if outer:
                took = f"which takes `@{taker.name}`"
                return outer.replace("which takes it", took, 1)
        return f"`{here[0]}`, which takes it, is not bound" if here else None


def _unscoped(binding: Binding) -> str:
    return f"{binding.selector}.{binding.parameter}"


def bindable(target: Callable[..., Any]) -> list[str] | None:
    """Returns the names of the parameters that gin may bind.

    Args:
      target: A function or class.

    Returns:
      With those that a class of ours or Keras's passes on to its superclasses;
      None if any name is allowed.
    """
    signature = inspect.signature(target)
    if not has_keywords(target):
        return [
            name
            for name, one in signature.parameters.items()
            if one.kind is inspect.Parameter.KEYWORD_ONLY
            or not typed_gin.is_configured(target)
        ]
    module = (target.__module__ or "").partition(".")[0]
    if not inspect.isclass(target) or module not in _KNOWN:
        return None
    found = [
        name
        for cls in target.__mro__
        if "__init__" in vars(cls)
        for name, one in inspect.signature(
            vars(cls)["__init__"]
        ).parameters.items()
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    return [name for name in dict.fromkeys(found) if name != "self"]


def has_keywords(target: Callable[..., Any]) -> bool:
    """Returns whether a function or class has `**kwargs`."""
    parameters = inspect.signature(target).parameters.values()
    return any(one.kind is one.VAR_KEYWORD for one in parameters)


def is_likely_typo(name: str, other: str) -> bool:
    """Returns whether a name is likely to be a misspelt other one.

    Names that differ by a number, or in words of their own such as `R_LOW` and
    `R_HIGH`, are not.
    """
    if name.replace("_", "").lower() == other.replace("_", "").lower():
        return name != other
    words, others = name.split("_"), other.split("_")
    pairs = [(a, b) for a, b in zip(words, others, strict=False) if a != b]
    if len(words) != len(others) or len(pairs) != 1:
        return False
    ((one, two),) = pairs
    if one.isdigit() or two.isdigit():
        return False
    ratio = difflib.SequenceMatcher(None, one, two).ratio()
    is_permuted = len(one) > 2 and sorted(one) == sorted(two)
    return ratio >= _SIMILAR or is_permuted


def _package(found: Configurable | None) -> str:
    """Returns the package that something is from, "" for what is unknown."""
    module = getattr(getattr(found, "wrapped", None), "__module__", None) or ""
    return module.partition(".")[0]


def _called(function: Callable[..., Any]) -> set[Callable[..., Any]]:
    """Returns a function, and all that it calls by declaration."""
    plain = inspect.unwrap(function)
    found = {plain}
    for one in typed_gin.uses_of(plain).calls:
        found |= _called(one)
    return found


def _is_called_directly(found: Configurable) -> bool:
    """Returns whether Python code gets bindings by calling it by its name.

    It does if the name stands for gin's wrapper, as with `gin.configurable`
    and not with `gin.register`.
    """
    place: Any = sys.modules.get(getattr(found.wrapped, "__module__", "") or "")
    for part in getattr(found.wrapped, "__qualname__", "").split("."):
        place = getattr(place, part, None)
    return place is not found.wrapped or found.wrapper is found.wrapped


def _hints(found: Configurable) -> dict[str, Any]:
    """Returns the types of parameters, as far as they can be resolved."""
    return _resolved(found.wrapped) if _package(found) in _OURS else {}


@functools.cache
def _resolved(target: Any) -> dict[str, Any]:
    if inspect.isclass(target):
        target = vars(target).get("__init__", target)
    try:
        return typing.get_type_hints(target)
    except (AttributeError, NameError, TypeError):
        return {}


def _slots(
    found: Configurable, takers: Iterable[Configurable]
) -> Iterator[tuple[Configurable, str]]:
    """Yields the parameters that take something, the most specific first."""
    made: Any = found.wrapped
    if not inspect.isclass(made):
        made = _hints(found).get("return")
    if not inspect.isclass(made):
        return
    ranked = []
    for taker in takers:
        for name, hint in _hints(taker).items():
            if name == "return":
                continue
            for one in _classes(hint):
                if one in made.__mro__ and one is not object:
                    ranked.append((made.__mro__.index(one), taker, name))
    # A network may be meant for any parameter that takes layers.
    is_one = inspect.isclass(found.wrapped)
    nearest = min((rank for rank, *_ in ranked), default=0)
    for rank, taker, name in sorted(ranked, key=lambda one: one[0]):
        if rank == nearest or not is_one:
            yield taker, name


def _classes(hint: Any) -> Iterator[type]:
    """Yields the classes that a type names, with those functions return."""
    if inspect.isclass(hint) and not typing.get_args(hint):
        yield hint
    for one in typing.get_args(hint):
        yield from () if isinstance(one, list) else _classes(one)
