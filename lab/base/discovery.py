"""Discovery of plug-in classes: one class per module of a package, so that a new one is a new file."""

import importlib
import pkgutil
from types import ModuleType


def classes[C](package: ModuleType, base: type[C]) -> dict[str, type[C]]:
    """Map each module's name to the one subclass of `base` that it defines.

    Modules whose names begin with `_` are skipped. Raises TypeError if a module does not define exactly one.
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
