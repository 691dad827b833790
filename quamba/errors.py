"""What can go wrong in the library.

    QuambaError
    ├── ModelError      a model cannot be found, read or understood
    ├── RecipeError     a combination of options that cannot be built
    ├── DataError       calibration or evaluation data cannot be read
    ├── SaveError       a quantized model cannot be written
    ├── StatisticError  a statistic of the user's own cannot be registered
    ├── TaskError       an evaluation task is unknown or cannot be run
    └── DeviceError     the device asked for is not there

Each message is one line: what was wrong, with the value, and what to do.
"""


class QuambaError(Exception):
    """Base of all errors that this library raises on purpose."""


class ModelError(QuambaError):
    """A model cannot be found, read or understood."""


class RecipeError(QuambaError, ValueError):
    """A combination of options that cannot be built."""


class DataError(QuambaError):
    """Calibration or evaluation data cannot be read."""


class SaveError(QuambaError):
    """A quantized model cannot be written."""


class StatisticError(QuambaError):
    """A statistic of the user's own cannot be registered."""


class TaskError(QuambaError):
    """An evaluation task is unknown or cannot be run."""


class DeviceError(QuambaError):
    """The device asked for is not there."""


__all__ = [
    "DataError",
    "DeviceError",
    "ModelError",
    "QuambaError",
    "RecipeError",
    "SaveError",
    "StatisticError",
    "TaskError",
]
