"""Every limit and default of the product, once.

A limit that is reached is answered with `LimitReached`, naming the limit, and changes nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Cluster
KEYRINGS_PER_CLUSTER: Final = 3500
OBJECTS_PER_KEYRING: Final = 256  # default of the cluster policy `objects_per_keyring`, ...
OBJECTS_AT_MOST: Final = 1_000_000  # ... which goes up to this
OBJECTS_PER_PARTITION: Final = 100
PARTITION_BYTES: Final = 16 * MIB  # of a partition's file
PARTITIONS: Final = 100
GROUPS: Final = 64
LOCAL_GROUP: Final = "local"  # that of a new member
RECOMMENDED_MEMBERS: Final = 4
MEMBERS: Final = 64  # more than anybody should run; a list of members has an end
CLUSTERS_PER_CLIENT: Final = 10
KEYRINGS_PER_CREATE: Final = 100
OBJECTS_PER_RESEAL: Final = 64  # sealed anew in one step of a rekey, or fewer where they are large
OBJECTS_PER_GENERATE: Final = 100  # keys, or key pairs, made in one call

# Names and values, in bytes of UTF-8 unless it says characters
LABEL_BYTES: Final = 256
ID_BYTES: Final = 255
DATA_BYTES: Final = 64 * KIB
CERTIFICATE_BYTES: Final = 64 * KIB
OBJECT_BYTES: Final = 64 * KIB  # the value of an object that is given: the largest of these
WRAPPED_BYTES: Final = 16 * KIB  # a wrapped key: the largest private key, and the largest RSA ciphertext beside it
TEMPLATE_ATTRIBUTES: Final = 64
KEY_FILE_BYTES: Final = MIB  # of a file from which keys, certificates and secrets are imported
KEY_FILE_OBJECTS: Final = 100  # that such a file holds
CHAIN_CERTIFICATES: Final = 10  # from the one that is verified to its root, both counted
CHAIN_SIGNATURES: Final = 100  # that are tried to find such a chain
CERTIFICATE_DAYS: Final = 36_525  # a hundred years, that a certificate is valid at most
SERIAL_BYTES: Final = 20  # of a certificate's serial number (RFC 5280, 4.1.2.2)
SUBJECT_NAMES: Final = 100  # DNS names, addresses and so on of one certificate
SESSION_OBJECT_BYTES: Final = 10 * KIB  # sealed; it travels beside a full request
NAME_CHARACTERS: Final = 64  # users, roles, clients, groups, members, partitions
CUSTOM_ROLES: Final = 64  # of a cluster
PASSWORD_CHARACTERS: Final = (8, 255)
ACTIVATION_BYTES: Final = (8, 4096)
SMK_BACKUP_BYTES: Final = 64 * KIB
SMK_GENERATIONS: Final = 8  # that are held at once
SHARES: Final = 8  # of one secret
SHARES_TOGETHER: Final = 2  # open it, at least
SHARES_COPIES: Final = 70  # 4 of 8
SHARE_CHARACTERS: Final = 512  # as somebody types it
TPM_PCRS: Final = 24  # platform configuration registers of a TPM 2.0

# Messages
REQUEST_BYTES: Final = MIB  # data one request carries
CIPHERTEXT_BYTES: Final = REQUEST_BYTES + 16  # to decrypt: the most that is encrypted, and a tag or a block of padding
AAD_BYTES: Final = 2 * KIB  # associated data
PARAMETERS_BYTES: Final = AAD_BYTES + 64  # of a mechanism, encoded
SIGNATURE_BYTES: Final = 8 * KIB  # that is verified
BODY_BYTES: Final = MIB + 16 * KIB  # the body frame: a full request and its envelope
HEADER_BYTES: Final = 512
TOKEN_BYTES: Final = 4 * KIB
DECODE_DEPTH: Final = 16
OPERATION_CHARACTERS: Final = 64
BATCH_ITEMS: Final = 1024
WRAPPED_AT_ONCE: Final = 64  # keys in one request; of each up to SESSION_OBJECT_BYTES come, and WRAPPED_BYTES go
PART_BYTES: Final = 256 * KIB  # of a long input that is fed to one use of a key
STREAMED_BYTES: Final = 2**36 - 64  # of one such input under a mode that counts its blocks (SP 800-38D, 5.2.1.1)
CACHED_STREAMS: Final = 64  # long inputs of a worker at once; the client with most of them loses its own first
COMMITS_TOGETHER: Final = 64  # from an hsm worker to its store, in one message
GETS_TOGETHER: Final = 64  # likewise
USES_TOGETHER: Final = 16  # of keys, in one message
PAGE_ITEMS: Final = 256
PAGE_BYTES: Final = 512 * KIB  # a page of objects ends with the one that would exceed it

# Time, in seconds unless it says otherwise
DEADLINE: Final = 10.0
MAX_DEADLINE_MS: Final = 600_000
SOONER: Final = 0.05  # of a deadline: so much sooner who is asked gives up, and says where it was lost, ...
SOONER_SECONDS: Final = 0.5  # ... but so long at most; half of it is for who passes it on
ISSUED_AT_TOLERANCE: Final = 300
CLOCK_TOLERANCE: Final = 60
TOKEN_LIFETIME: Final = 15 * 60
TOKEN_LIFETIME_MAX: Final = 24 * 3600
SESSION_LIFETIME: Final = 24 * 3600
LEASE_MS: Final = 1500
PING_MS: Final = 150
WORKER_LEASE_MS: Final = 1000
DUPLICATE_WINDOW: Final = 600  # a duplicate record is kept at least this much log time
DUPLICATE_RECORDS: Final = 1024  # ... and while it is among the client's newest
LOG_ENTRIES: Final = 4096  # applied entries the store keeps in its log, and no more
LOG_BYTES: Final = 64 * MIB  # ... than this much payload
DISK_STALL: Final = 30.0  # a store whose disk answers nothing for this long exits
# A service whose process lives and answers nothing for this long is ended and started again: as long as a disk may
# stall, and many times what a loop does at a stretch, or a starved machine keeps from a process.
SERVICE_SILENCE_MS: Final = 30_000
SERVICE_STARTING: Final = 900.0  # ... before its first answer: a store may be checking a large database
SEALING_PATIENCE: Final = 4  # ... times so long for an HSM that is activated by hand: its restart seals the member

ETCD_SECONDS: Final = 2.0  # in which a request to etcd has an outcome; its own elections take less
ETCD_ENDPOINTS: Final = 16  # of one etcd; it recommends 3 to 5 nodes
ETCD_REQUEST_BYTES: Final = BODY_BYTES + 16 * KIB  # that it must take: the largest entry, with what goes along
ETCD_QUOTA_BYTES: Final = 2048 * MIB  # its default, and the least that is not warned of

CHANNEL_EPOCH: Final = 24 * 3600  # a channel key is the newest for so long
CHANNEL_OVERLAP: Final = 3600  # ... and accepted so long beside the next
CHANNEL_SETTLE: Final = 15  # ... and offered to clients only so long after it was drawn: all members have it then

# Failed logins
FAILURES_BEFORE_LOCK: Final = 10
LOCK_SECONDS: Final = 15 * 60
FAILURES_BEFORE_DELAY: Final = 20  # of one role holder over all clients
DELAY_MAX: Final = 3600
ATTEMPT_SECONDS: Final = 60  # after which an attempt under way is taken for a failed one
FAILURES_BEFORE_LOCK_MAX: Final = 1000  # that policy lock_after may say
FORGIVEN_AFTER: Final = 3600  # since the last one, one failure over all clients each
SWEEP_SECONDS: Final = 600.0  # between two sweeps of what counts nothing any more, about
SUCCEEDED_LATELY: Final = 30 * 24 * 3600  # a client that did is not delayed by others' failures
NAMES_TRIED: Final = 1024  # of one client, or of all that are not registered: names that it failed at, and never got in
SESSIONS_ENDED: Final = 1024  # of one client within a day, of those without a login

# Requests that wait for a second person (policy dual_control)
APPROVAL_SECONDS: Final = 24 * 3600  # until one expires, approved or not
APPROVALS: Final = 256  # of a cluster, those that were used or expired a short while ago among them
APPROVALS_OF_ONE: Final = 32  # that wait, of one user
APPROVAL_BYTES: Final = 8 * KIB  # of the arguments of one

# Invitations
INVITATION_SECONDS: Final = 15 * 60
INVITATIONS_KEPT: Final = 64  # the newest, open or not, so that a refusal can say which condition failed

# Argon2id: memory in KiB, passes, lanes
CREDENTIAL_ARGON2: Final = (64 * KIB, 3, 1)
ACTIVATION_ARGON2: Final = (256 * KIB, 3, 4)
DOMAIN_ARGON2: Final = (256 * KIB, 3, 4)
SMK_BACKUP_ARGON2: Final = (256 * KIB, 3, 4)
ARGON2_QUEUE: Final = 64

# Queues
REQUESTS_IN_FLIGHT: Final = 4096  # in one service, over all its callers
REQUESTS_PER_CLIENT: Final = 1024  # of one connection, in the balancer
SLOW_JOBS: Final = 64  # RSA keys to be made, in one hsm worker
HIGH_WATER_MARK: Final = 8192
BYTES_IN_FLIGHT: Final = 128 * MIB  # of requests one balancer is answerable for


class Budget(NamedTuple):
    """The budget of one class of peers: what all of them together may have of one member (`balancer/budgets.py`).

    Args:
        requests, bytes: in flight. An account alone may have half of it, a third beside one other account, and so on.
        held: bytes that came and are no whole messages yet.
        unread: bytes of answers that were not read. A connection alone may have half of it, and so on.
        at_workers: requests at workers at once, where the others wait their turn; 0: any number, and none waits.
        work: seconds of workers' time a second; 0: any.
        looks: requests a second that are looked at, where more are thrown away unread; 0: any number. An account alone
            may use half of a second's worth at once, and so on.
        volume: bytes a second that are read. While more came, a message above `DOOR_BYTES` costs its sender the
            connection, and nobody of the class is let in; 0: any number.
    """

    requests: int
    bytes: int
    held: int
    unread: int
    at_workers: int = 0
    work: float = 0.0
    looks: int = 0
    volume: int = 0


# Who has no registered client's key; who has one, and no login; who has logged in; and other members.
STRANGERS: Final = Budget(256, 8 * MIB, 4 * MIB, 4 * MIB, at_workers=4, work=0.1, looks=2000, volume=4 * MIB)
CLIENTS: Final = Budget(768, 16 * MIB, 32 * MIB, 16 * MIB, at_workers=6, work=0.1, looks=2000)
SESSIONS: Final = Budget(2048, 64 * MIB, 64 * MIB, 64 * MIB)
PEERS: Final = Budget(1024, 40 * MIB, 64 * MIB, 64 * MIB)
ASKED_ON: Final = 16 * MIB  # of requests of a connection that is Busy with what it left unread, and reads nothing
PUT_OUT_SECONDS: Final = 15.0  # for which its client is not let in again
KEYS_PUT_OUT: Final = 1024  # at a time
STRANGERS_AT_SERVICES: Final = 100  # requests a second, all together, that another service than the balancer looks at
HELLO_FRESH: Final = 1.0  # seconds that an answer to `hello` is given to everybody who asks
FRAMES_TAKEN: Final = 64  # of one message; a peer that sends more is disconnected
MESSAGES_AHEAD: Final = 64  # of one client's connection, which libzmq takes from it before they are read
DOOR_BYTES: Final = 4 * KIB  # of a message to the door, which is a `hello`

# The PKCS#11 gateway
PKCS11_FRAME_BYTES: Final = 4 * MIB  # of a request; of a longer one nothing is kept, and it is refused
PKCS11_GATHERED_BYTES: Final = REQUEST_BYTES  # of the parts of one operation, where they are not hashed on arrival ...
PKCS11_TAGGED_BYTES: Final = 16 * MIB  # ... of which a tag is made: they go to the HSM in parts, too
PKCS11_SOCKETS: Final = 1024
PKCS11_REQUESTS: Final = 256  # of one socket at once; what comes beyond is not read yet
PKCS11_SESSIONS: Final = 4096  # of one application
PKCS11_HANDLES: Final = 1 << 20  # likewise, of objects
PKCS11_FOUND: Final = 1024  # objects that one C_FindObjects gives
PKCS11_FRESH: Final = 1.0  # seconds that a list of keyrings, or what was read of an object, is taken for what is
PKCS11_END_SECONDS: Final = 5.0  # that a gateway which is told to end gives to logouts under way
PKCS11_UNHEARD: Final = 10.0  # ... for which a cluster that did not answer is not asked again what keyrings it has

# Caches of one hsm worker
CACHED_KEYS: Final = 4096
CACHED_SESSIONS: Final = 4096
CACHED_RECORDS: Final = 8192
CACHED_PAGES: Final = 64  # of tables of records

# The hsm core
ITEMS_SEEN: Final = 1 << 17  # whose highest version it remembers
MARKS_AT_ONCE: Final = 4096

# The audit trail
AUDIT_SIGN_RECORDS: Final = 1000
AUDIT_SIGN_SECONDS: Final = 10.0
AUDIT_PAGE_BYTES: Final = 256 * KIB  # of lines in one answer, and one line more
AUDIT_SEGMENT_BYTES: Final = 64 * MIB
AUDIT_SEGMENTS: Final = 64  # of a trail, its newest among them; beyond that the oldest is dropped
REFUSALS_TOGETHER: Final = 60.0  # seconds: refusals of one kind by one peer are one record with a count
REFUSAL_KINDS: Final = 4096  # of them at a time; what exceeds them is counted as one kind
REFUSED_IDENTITIES: Final = 8  # that such a record names

# The REST service (lnh-rest)
REST_BODY_BYTES: Final = 2 * MIB  # of a request: its largest data in base64, and what is around it
REST_HEADER_BYTES: Final = 16 * KIB  # of a request's line and headers together
REST_QUERY_FIELDS: Final = 32
REST_PAGE: Final = 100  # items of a page where none is asked for; PAGE_ITEMS at most
REST_SESSIONS: Final = 1024  # open at once, ...
REST_SESSIONS_OF_ONE: Final = 64  # ... and so many of one holder
REST_SESSION_SECONDS: Final = 8 * 3600  # after a login
REST_REPEATS: Final = 256  # answers under an Idempotency-Key that one session has kept for it, its newest
REST_REPEAT_BYTES: Final = MIB  # of those answers together
REST_REPEAT_CHARACTERS: Final = 128  # of such a key
REST_IN_FLIGHT: Final = 256  # requests at once
REST_CONNECTIONS: Final = 1024  # at once, ...
REST_CONNECTIONS_OF_ONE: Final = 128  # ... and so many of one address
REST_HEADER_SECONDS: Final = 10.0  # until a request's headers are there
REST_BODY_SECONDS: Final = 30.0  # until its body is
REST_IDLE_SECONDS: Final = 60  # between two requests of a connection
REST_SLOW_SECONDS: Final = 120.0  # that the making of keys may take
REST_RATE: Final = 1000.0  # requests a second of one address, ...
REST_LOGIN_RATE: Final = 0.5  # ... and logins, ...
REST_LOGIN_BURST: Final = 20.0  # ... of which there may be this many seconds' worth at once
REST_ADDRESSES: Final = 4096  # whose rates are remembered
REST_GRACE: Final = 10  # seconds that requests under way have at the end, ...
REST_FAREWELL: Final = 1.0  # ... and those that ask nothing
REST_WATCHES: Final = 64  # dashboards that watch the cluster at once, ...
REST_WATCHES_OF_ONE: Final = 4  # ... and so many of one session
REST_WATCH_SECONDS: Final = 2.0  # between two looks for one of them
REST_TRAIL_LINES: Final = 500  # of the audit trail in one answer at most, ...
REST_TRAIL_PAGE: Final = 100  # ... and where no number is asked for
REST_FAILURES_OF_ONE: Final = 4  # wrong passwords of one address at one holder, ...
REST_FAILURES: Final = 8  # ... and of all of them: below FAILURES_BEFORE_LOCK, so that no stranger comes to that
REST_HOLDERS: Final = 16384  # whose wrong passwords are remembered, ...
REST_KNOWN: Final = 64  # ... and of each the addresses that logged in, ...
REST_KNOWN_SECONDS: Final = 24 * 3600  # ... for so long
REST_STREAMS: Final = 16  # requests whose body or answer is of any length, at once
REST_STREAM_BYTES: Final = 4096 * MIB  # of such a body that is kept until it may be answered
REST_READY_SECONDS: Final = 2.0  # that a member has to answer when it is asked whether one does; good for so long
REST_PIECE_SECONDS: Final = 30.0  # that the next piece of such a body or answer may take

# The KMS plugin of Kubernetes (lnh-kms)
KMS_CIPHERTEXT_BYTES: Final = KIB  # that an API server stores of one; it sends 32 bytes to be encrypted
KMS_PLAINTEXT_BYTES: Final = KMS_CIPHERTEXT_BYTES - 12 - 16  # without IV and tag
KMS_KEY_ID_CHARACTERS: Final = KIB  # that an API server stores
KMS_MESSAGE_BYTES: Final = 128 * KIB  # of a request, of whose 32 KiB of annotations there are none of ours
KMS_REQUESTS: Final = 256  # at once; what comes beyond waits its turn
KMS_IN_FLIGHT: Final = 4096  # with those that wait; what comes beyond is refused
KMS_FRESH: Final = 1.0  # seconds that a list of keys, and an error in its place, is taken for what is
KMS_LOGIN_AGAIN: Final = 10.0  # ... after which a password that was refused is tried again
KMS_GRACE: Final = 10.0  # seconds that requests under way have at the end
