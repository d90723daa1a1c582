"""What mibench raises on purpose.

    MibenchError              the command line prints its message alone and exits 2
    +-- PluginError           a plugin file or name that cannot be used
    |   +-- UnknownPluginError
    +-- SuiteError            a suite that cannot be read or makes no sense
    +-- DataError             images, folders or splits that cannot be used
    |   +-- LeakError         one identity in two parts of a split
    +-- AccessError           an attack reached for more than its access level gives
    +-- QueryBudgetError      the victim's query budget is spent
    +-- TrainingError         a training run that diverged
    +-- StoreError            an artifact that cannot be read or written
    +-- RecordError           a records file that cannot be read
    +-- DeviceError           a device that was asked for and is not there
    +-- ClusterError          a Ray cluster that is not there, or whose nodes cannot do the work
    +-- OutOfRoomError        what does not fit into memory and may not be made smaller
    +-- WeightsError          a user's weights file that cannot be used
    +-- BudgetError           a budget of time that is none, or that nothing fits
    +-- BoardError            a board, an entry or a submission that cannot be used
    +-- ProfileError          a profile that cannot be made or read
    +-- BlockedError          a cell that makes no sense (the plan records it and goes on)

Messages read *where: what is wrong, with the value. What to do.*
"""

from __future__ import annotations


class MibenchError(Exception):
    """Anything that mibench raises on purpose; its message is meant for the user."""


class PluginError(MibenchError):
    """A plugin file or name that cannot be used."""


class UnknownPluginError(PluginError):
    """No plugin of that name exists."""


class SuiteError(MibenchError):
    """A suite that cannot be read or makes no sense."""


class DataError(MibenchError):
    """Images, folders or splits that cannot be used."""


class LeakError(DataError):
    """One identity lies in two parts of a split."""


class AccessError(MibenchError, AttributeError):
    """An attack reached for more than its access level gives; hasattr() therefore answers False."""


class QueryBudgetError(MibenchError):
    """The victim's query budget is spent; attacks let this error through."""


class TrainingError(MibenchError):
    """A training run that diverged: its loss became NaN or infinite."""


class StoreError(MibenchError):
    """An artifact that cannot be read or written."""


class RecordError(MibenchError):
    """A records file that cannot be read."""


class DeviceError(MibenchError):
    """A device that was asked for and is not there."""


class OutOfRoomError(MibenchError):
    """Something does not fit into memory, and making it smaller would change what is computed."""


class ClusterError(MibenchError):
    """A Ray cluster that is not there, or whose nodes cannot do the work."""


class WeightsError(MibenchError):
    """A user's weights file that cannot be used."""


class BudgetError(MibenchError):
    """A budget of time that is no duration, or that no cell fits."""


class BoardError(MibenchError):
    """A board, an entry or a submission that cannot be used."""


class ProfileError(MibenchError):
    """A profile that cannot be made or read."""


class BlockedError(MibenchError):
    """A cell that makes no sense, for example a budget below the attack's least need."""
