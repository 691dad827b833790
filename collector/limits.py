"""The bounds on everything that arrives: sizes, counts, depths.

Each is far above what an experiment needs and far below what would harm the collector.
"""

KIB, MIB = 1 << 10, 1 << 20

# --- one request ---
MAX_REQUEST_BYTES = 4 * MIB
MAX_EVENTS_PER_BATCH = 4096
# Half a batch, so that whatever is replayed to a watcher fits a client's default limit of 4 MiB.
MAX_EVENT_BYTES = 1 * MIB
MAX_NAME_BYTES = 256
MAX_TEXT_BYTES = 64 * KIB
MAX_FIELDS = 1024
# Of nested lists and objects; protobuf's own limit of 100 nested messages is reached at 33.
MAX_VALUE_DEPTH = 16
MAX_TASKS = 1024
MAX_METRICS = 256
MAX_REFS = 1000
MAX_COMPARED = 64
# Of a filter: characters, comparisons, nested parentheses.
MAX_FILTER_LENGTH = 4096
MAX_FILTER_TERMS = 128
MAX_FILTER_DEPTH = 32
# Keys of an order_by, and its characters.
MAX_ORDER_KEYS = 8
MAX_ORDER_LENGTH = 4096
# Tokens hold what orders a list, and of a watch the places in all that run.
MAX_TOKEN_LENGTH = 2 * MIB

# --- one experiment ---
MAX_EVENTS = 10_000_000
MAX_TENSORS = 32_768
MAX_EXPERIMENT_BYTES = 256 * MIB

# --- all experiments ---
# Those that have begun and not ended.
MAX_RUNNING = 10_000

# --- the server ---
# Streams (appenders, watchers, exports) hold a thread each for as long as they last. They are counted, and the pool
# has these many threads more for unary calls, so that streams cannot starve those.
MAX_STREAMS = 256
UNARY_THREADS = 32
# Calls beyond the streams, working or waiting for a thread; more are refused at once.
MAX_WAITING_CALLS = 512
# What a call that is no stream may take where it has no deadline of its own, in seconds.
UNARY_S = 60.0
# Batches of one appender, and bytes of all appenders, that wait for the disk.
MAX_PENDING_PER_STREAM = 64
MAX_PENDING_BYTES = 64 * MIB

# --- what is sent ---
EXPORT_CHUNK_BYTES = 512 * KIB
WATCH_CHUNK_BYTES = 512 * KIB
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000
# A page ends early here; single experiments may be larger, up to MAX_RESPONSE_BYTES. Clients take that much:
# `grpc.max_receive_message_length` = 256 MiB.
PAGE_BYTES = 32 * MIB
MAX_RESPONSE_BYTES = 256 * MIB

# --- one line of the log ---
# Longer ones (none is written) are corrupt: they are not read into memory.
MAX_LINE_BYTES = 512 * MIB
