"""Runtimes and boxes of boxlite's Python package, for each release that suites run against."""

from pathlib import Path

import boxlite
from boxlite import Boxlite, BoxOptions, ImageRegistry, NetworkSpec, Options, SecurityOptions
from packaging.version import Version
from remedies import JAILER_OFF, PREFLIGHT, preflight

try:
    from boxlite import AdvancedBoxOptions
except ImportError:  # boxlite 0.9
    from boxlite.boxlite import AdvancedBoxOptions

release = Version(boxlite.__version__)
# Upstream turned the jailer on by default after 0.9.5, as what each release records of a box shows. There is no
# release 0.9.6.
JAILER_BY_DEFAULT = release > Version("0.9.5")
# Releases of 0.9 make the system that boots in a box from the image debian:bookworm-slim, even if `rootfs_path`
# is set. Newer ones bring that system with them.
NEEDS_REGISTRY = release < Version("0.10.0a0")


def runtime(home: Path, registry: str | None) -> Boxlite:
    """The runtime with this home. `registry`, if any, is asked first for each image, without encryption."""
    registries = [ImageRegistry(host=registry, transport="http", search=True)] if registry else []
    return Boxlite(Options(home_dir=str(home), image_registries=registries))


def options(rootfs: str, security: SecurityOptions | None = None, **more: object) -> BoxOptions:
    """Options of a small box, and `more` of them. If `security` is None, boxlite chooses."""
    advanced = None if security is None else AdvancedBoxOptions(security=security)
    # Since 0.10 the host's network grants can be dropped only together with the box's own network.
    offline = security is not None and not security.network_enabled
    usual = {
        "rootfs_path": rootfs,
        "cpus": 1,
        "memory_mib": 256,
        "auto_remove": True,
        "advanced": advanced,
        "network": NetworkSpec(mode="disabled") if offline else None,
    }
    return BoxOptions(**{**usual, **more})


def allowed(security: SecurityOptions | None) -> SecurityOptions | None:
    """Security options, unless a remedy that is being tried changes them."""
    if security is None or not security.jailer_enabled:
        return security
    if JAILER_OFF:
        return SecurityOptions.development()
    if PREFLIGHT:
        preflight()
    return security


def requested(security: SecurityOptions | None) -> dict[str, object]:
    """What a test asks of boxlite, by the names of boxlite's own options; nothing if boxlite chooses."""
    names = [name for name in dir(security) if not name.startswith("_")] if security else []
    values = {name: getattr(security, name) for name in names}
    return {name: value for name, value in values.items() if value is None or isinstance(value, (bool, int))}
