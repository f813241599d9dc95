"""A process that ends in the middle of its work."""

from emodarts.progress import Silent


class Killed(BaseException):
    """The process ends here."""


class Kill(Silent):
    """Kills the process at a step of its progress, counted from 1."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, **values: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed
