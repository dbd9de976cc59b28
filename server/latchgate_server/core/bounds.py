"""Every bound on what a stranger or an administrator can send, in one place.

Lengths are in characters, sizes in bytes where the name says so. `docs/reference/bounds.md` repeats this table for
users, and a test compares the two.
"""

from __future__ import annotations

from typing import Final

# The data plane: whatever is longer is denied, never looked at.
KEY_STRING_LENGTH: Final = 1_024
CLIENT_ADDRESS_LENGTH: Final = 64
REQUIREMENT_LENGTH: Final = 4_096
REQUIREMENT_DEPTH: Final = 32
REQUEST_INFO_LENGTH: Final = 2_000
BATCH_SIZE: Final = 1_000

# Names.
ID_LENGTH: Final = 63
KEY_ID_LENGTH: Final = 255
KEY_PREFIX_LENGTH: Final = 32
DISPLAY_NAME_LENGTH: Final = 200
DESCRIPTION_LENGTH: Final = 2_000
USER_LENGTH: Final = 200
ENVIRONMENT_LENGTH: Final = 63
REASON_LENGTH: Final = 500
ETAG_LENGTH: Final = 64

# What a key, role, plan or tenant can hold.
ROLES_PER_KEY: Final = 100
PERMISSIONS: Final = 1_000
PERMISSION_LENGTH: Final = 200
CAPABILITIES: Final = 1_000
CAPABILITY_LENGTH: Final = 100
TAGS: Final = 64
TAG_NAME_LENGTH: Final = 63
TAG_VALUE_LENGTH: Final = 256
CLAIMS_BYTES: Final = 16 * 1_024
CLAIMS_DEPTH: Final = 16
ADDRESS_RANGES: Final = 1_000
RESOURCES: Final = 1_000
RESOURCE_LENGTH: Final = 500
LIMITS: Final = 16
LIMIT_VALUE: Final = 2**53 - 1
LIMIT_PERIOD_SECONDS: Final = 366 * 86_400

# Lists and updates.
PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE: Final = 1_000
PAGE_TOKEN_LENGTH: Final = 1_024
FILTER_STATES: Final = 16
MASK_PATHS: Final = 100

# What is told of a malformed request: an answer's metadata is limited to 8 KiB.
VIOLATIONS: Final = 10
QUOTED_LENGTH: Final = 40

# What is kept and told of the use of keys.
USES_PER_KEY: Final = 100
SOURCES_PER_KEY: Final = 50
USAGE_BUCKETS: Final = 10_000
BUSIEST_KEYS: Final = 100
BUSIEST_KEYS_LOOKED_AT: Final = 1_000

# Clients with a cache of their own.
WATCHERS: Final = 1_000
WATCHER_BACKLOG: Final = 1_000
WATCHER_SILENCE_SECONDS: Final = 60
WATCHER_MESSAGES_PER_SECOND: Final = 100
WATCHER_MESSAGES_AT_ONCE: Final = 50
WATCHER_USES_PER_MESSAGE: Final = 100
CACHED_USES: Final = 1_000
CACHED_USE_REASONS: Final = 64
CACHED_USE_COUNT: Final = 2**31 - 1
CACHED_USES_WAITING: Final = 20_000

# Single calls.
LEAKED_KEYS: Final = 100
GRACE_PERIOD_SECONDS: Final = 366 * 86_400
IMPORTED_KEYS: Final = 1_000

# What Envoy asks, what its upstreams are told, and the settings of both.
CREDENTIAL_SOURCES: Final = 16
HEADER_NAME_LENGTH: Final = 100
IDENTITY_HEADERS_BYTES: Final = 48 * 1_024
COST: Final = 2**53 - 1
DENIAL_CODE_LENGTH: Final = 100
DENIAL_MESSAGE_LENGTH: Final = 500

# Argon2 hashes of other systems: what verifying one may cost. m in KiB, m times t in KiB-passes.
IMPORT_PHC_LENGTH: Final = 256
IMPORT_ARGON2_KIB: Final = 65_536
IMPORT_ARGON2_PASSES: Final = 16
IMPORT_ARGON2_LANES: Final = 4
IMPORT_ARGON2_WORK: Final = 262_144
IMPORT_ARGON2_BYTES: Final = 64

# Credentials of other systems, as strangers present them.
UNKNOWN_FORMS_AT_ONCE: Final = 1_000
UNKNOWN_FORMS_PER_SECOND: Final = 100
UNKNOWN_FORM_WAIT_SECONDS: Final = 1
WRONG_TRIES_AT_ONCE: Final = 10
WRONG_TRIES_PER_MINUTE: Final = 6
WRONG_TRIES_REMEMBERED: Final = 100_000
IMPORTED_PROOFS_AT_ONCE: Final = 128
