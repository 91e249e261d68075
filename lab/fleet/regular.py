"""What dask does regularly, by a clock that nobody sets."""

from tornado.ioloop import PeriodicCallback


class Regular(PeriodicCallback):
    """In place of tornado's own, which does nothing for an hour when the time of day is set back by one."""

    def _schedule_next(self) -> None:
        if self._running:
            self._timeout = self.io_loop.call_later(self.callback_time / 1000, self._run)
