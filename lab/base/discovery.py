"""Finding what a package is made of: one class in each of its modules, so that a new one is a new file."""

import importlib
import pkgutil
from types import ModuleType


def classes[C](package: ModuleType, base: type[C]) -> dict[str, type[C]]:
    """The one subclass of `base` that each module of a package defines, by the module's name.

    Raises TypeError for a module that defines none or several; modules that begin with `_` are no members.
    """
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        own = [
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, base) and each.__module__ == module.__name__
        ]
        if len(own) != 1:
            raise TypeError(f"{module.__name__} defines {len(own)} kinds of {base.__name__}, not one")
        found[info.name] = own[0]
    return found
