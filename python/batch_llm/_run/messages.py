"""Codes of the messages between the engine and the event loop.

Twin of ``src/bridge/messages.rs``; a test compares them.
"""

from __future__ import annotations

# From the engine: (code, item, attempt, value).
START = 0  # value: worker
ANSWERED = 1  # value: (text, usage, metadata) of a native attempt
FAILED = 2  # value: the exception of a native attempt
RESUME = 3
TIMED_OUT = 4  # value: None, or the category of the limit that is not the attempt's own
ABANDON = 5
ASK_COOLDOWN = 6  # item: worker; attempt: consecutive cooldowns; value: (queue, whether the server has decided)
ASK_SLOW_START = 7  # item: number of the first delay; attempt: queue
COOLDOWN_ENDED = 8  # attempt: queue; value: seconds it lasted
ROOM = 9
DRAINED = 10
BROKEN = 11  # value: what happened
REFUSE = 12  # value: (category, detail)
REFUSE_FRESH = 13  # item: the first; attempt: how many; value: as above
ESTIMATE = 14  # value: items
STOPPED = 15  # value: category
WRITTEN = 16  # value: how many of the records given to the journal are written
UNWRITTEN = 17  # value: why nothing more can be written to the journal
GIVE_UP = 18  # an item that waited after its last attempt has failed with that error
OUTAGE_BEGAN = 19  # attempt: queue; value: (seconds since the first failure, how long it may last)
OUTAGE_ENDED = 20  # attempt: queue; value: seconds from the first failure on
STANDSTILL = 21  # value: (what is waited for, seconds yet or None)
BOARD = 22  # value: why the board of shared limits cannot be reached; None: it can again
DEFERRED = 23  # the item's answer comes later
AGAIN = 24  # a deferred item was not answered, and is to be asked again

# To the engine: how an attempt failed.
PERMANENT = 0
RETRY_WITH_BACKOFF = 1
RETRY_AT_ONCE = 2
RATE_LIMIT = 3
OVERLOADED = 4
CUT = 5

# To the engine: what that shows about whether the provider is up.
NOTHING = 0
ALIVE = 1
AWAY = 2
UNREACHABLE = 3
