"""Every bound on what a stranger or an administrator can send, in one place.

Lengths are in characters, sizes in bytes where the name says so. `docs/reference/bounds.md` repeats this table for
users, and a test compares the two.
"""

# The data plane: whatever is longer is denied, never looked at.
KEY_STRING_LENGTH = 1_024
CLIENT_ADDRESS_LENGTH = 64
REQUIREMENT_LENGTH = 4_096
REQUIREMENT_DEPTH = 32
REQUEST_INFO_LENGTH = 2_000
BATCH_SIZE = 1_000

# Names.
ID_LENGTH = 63
KEY_ID_LENGTH = 255
KEY_PREFIX_LENGTH = 32
DISPLAY_NAME_LENGTH = 200
DESCRIPTION_LENGTH = 2_000
USER_LENGTH = 200
ENVIRONMENT_LENGTH = 63
REASON_LENGTH = 500
ETAG_LENGTH = 64

# What a key, role, plan or tenant can hold.
ROLES_PER_KEY = 100
PERMISSIONS = 1_000
PERMISSION_LENGTH = 200
CAPABILITIES = 1_000
CAPABILITY_LENGTH = 100
TAGS = 64
TAG_NAME_LENGTH = 63
TAG_VALUE_LENGTH = 256
CLAIMS_BYTES = 16 * 1_024
CLAIMS_DEPTH = 16
ADDRESS_RANGES = 1_000
RESOURCES = 1_000
RESOURCE_LENGTH = 500
LIMITS = 16
LIMIT_VALUE = 2**53 - 1
LIMIT_PERIOD_SECONDS = 366 * 86_400

# Lists and updates.
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE = 1_000
PAGE_TOKEN_LENGTH = 1_024
FILTER_STATES = 16
MASK_PATHS = 100

# What is told of a malformed request: an answer's metadata is limited to 8 KiB.
VIOLATIONS = 10
QUOTED_LENGTH = 40

# What is kept and told of the use of keys.
USES_PER_KEY = 100
SOURCES_PER_KEY = 50
USAGE_BUCKETS = 10_000

# Single calls.
LEAKED_KEYS = 100
GRACE_PERIOD_SECONDS = 366 * 86_400
IMPORTED_KEYS = 1_000

# What Envoy asks, what its upstreams are told, and the settings of both.
CREDENTIAL_SOURCES = 16
HEADER_NAME_LENGTH = 100
IDENTITY_HEADERS_BYTES = 48 * 1_024
COST = 2**53 - 1
DENIAL_CODE_LENGTH = 100
DENIAL_MESSAGE_LENGTH = 500

# Argon2 hashes of other systems: what verifying one may cost. m in KiB, m times t in KiB-passes.
IMPORT_PHC_LENGTH = 256
IMPORT_ARGON2_KIB = 65_536
IMPORT_ARGON2_PASSES = 16
IMPORT_ARGON2_LANES = 4
IMPORT_ARGON2_WORK = 262_144
IMPORT_ARGON2_BYTES = 64

# Credentials of other systems, as strangers present them.
UNKNOWN_FORMS_AT_ONCE = 1_000
UNKNOWN_FORMS_PER_SECOND = 100
UNKNOWN_FORM_WAIT_SECONDS = 1
WRONG_TRIES_AT_ONCE = 10
WRONG_TRIES_PER_MINUTE = 6
WRONG_TRIES_REMEMBERED = 100_000
IMPORTED_PROOFS_AT_ONCE = 128
