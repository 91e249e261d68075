from tests.fleet.examples import fleet

__all__ = ["fleet"]
