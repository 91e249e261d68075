from tests.fleet.examples import fleet, server

__all__ = ["fleet", "server"]
