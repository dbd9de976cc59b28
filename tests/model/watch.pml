/* The lease protocol of docs/consistency.md one level down: a client that watches a replica and has a cache of its own,
 * one key and its revocation.
 *
 * What must hold: no decision that starts after RevokeKey returned is made from the client's cache on the old record.
 *
 * Pauses and time are as in lease.pml: messages take as long as they like, streams break at any moment, and either
 * side notices that when it likes, or never. The client's clock may fall a tick behind everybody's. That a replica
 * keeps its own promise is shown there; so here its beat has two steps, its row is always there, and any replica may
 * answer a request with the old record until RevokeKey has returned. As such an answer may be under way for ever, the
 * client may receive one at any moment. It carries revision 0; the revocation has revision 1.
 *
 * Taken for granted: no revision number ever comes twice.
 *
 * Each of these, given to spin as -D…, breaks one rule, and must fail the assertion:
 *   FROM_RECEIPT      the client's lease counts from when it got the answer, not from when it sent the message
 *   FROM_LATEST       … from when it sent its latest message, not the one that is answered (with -DMESSAGES=2)
 *   ACK_FIRST         the replica's row names what the replica has applied, not what its clients have
 *   FORGET_BROKEN     a broken stream is forgotten with the lease that was granted over it
 *   NO_MARGIN         the replica waits for a client's lease without a margin
 *   NO_CAP            a client's lease may outlast that of the replica
 *   GRANT_STALE       a replica whose lease has run out grants leases
 *   SILENT_RESTART    a new feed connection evicts all, and the replica's clients are not told
 *   LEAVE_EARLY       a replica deregisters before its clients' leases have run out
 *   NO_REVISION       the client keeps an answer whatever its revision is
 *   EARLY_STORE       the client keeps an answer that comes before the first message of its new stream
 *   LEASE_FIRST       the client takes an answer before an invalidation that came before it
 *   KEEP_RECORDS      the client keeps its cache over a new stream
 *   KEEP_LEASE        the client keeps its lease over a new stream (with -DREPLICAS=2)
 */
#ifndef REPLICAS
#define REPLICAS 1        /* 2: the client may open its next stream to another replica, one that never falls behind */
#endif
#ifndef MESSAGES
#define MESSAGES 1        /* how many messages a client sends before the first of them is answered */
#endif
#ifndef LAG
#define LAG 1             /* 0: all clocks run alike */
#endif
#ifndef LEASE
#define LEASE 3
#endif
#ifndef CLIENT_LEASE
#define CLIENT_LEASE 4
#endif
#define MARGIN 1
#define USE (LEASE - MARGIN)
#define WAIT (LEASE + MARGIN)
#define LONGEST_GRANT (CLIENT_LEASE - MARGIN)
#ifdef NO_MARGIN
#define GRANT_MARGIN 0
#else
#define GRANT_MARGIN MARGIN
#endif

#define PUSHED MESSAGES   /* instead of a message's number: an invalidation, which answers none */
#define UNKNOWN 2         /* instead of a revision: no message has come over this stream */

mtype = { CLOCK, APPLY, DRAIN, LEFT };          /* what a replica does next: beat, or end */
mtype = { NO_STREAM, LIVE, DESERTED };          /* DESERTED: by the client, unnoticed */

/* The database. */
bit revision = 0;
bool row[REPLICAS] = true;
bit row_applied[REPLICAS];

bool returned = false;                          /* RevokeKey has */

/* The replicas. What is said of a client is what the replica knows of it. */
bit applied[REPLICAS];
mtype stream[REPLICAS] = NO_STREAM;
bit client_applied[REPLICAS];                   /* acknowledged over this stream */

/* The client. */
byte home = 0;                                  /* the replica that it watches */
byte known = UNKNOWN;                           /* the revision that it has applied */
bool old = false;                               /* whether it has the old record */
bool sent[MESSAGES];                            /* messages without an answer as yet */
chan up = [MESSAGES] of { bool, byte, byte };   /* whether it opens a stream, its number, the revision applied */
chan down = [MESSAGES + 1] of { byte, byte, bit }; /* the number of the message answered, a lease, the revision */

/* What is left of times, in ticks, or has passed. */
byte age = USE;                                 /* of the first replica's beat; USE: too old to give a lease */
byte valid = 0;                                 /* what is left of its lease */
byte granted[REPLICAS];                         /* … of the lease granted over the stream, as the replica counts */
byte orphaned[REPLICAS];                        /* … of leases granted over streams that broke */
byte left = 0;                                  /* … of the mutator's wait */
byte lease = 0;                                 /* … of the client's lease, as the client counts */
byte ago[MESSAGES];                             /* since the client sent the message */
bool late = false;                              /* the client's clock is a tick behind */

inline tick_client() {
  if :: lease > 0 -> lease-- :: else fi;
  do
  :: i < MESSAGES -> if :: sent[i] && ago[i] < LONGEST_GRANT -> ago[i]++ :: else fi; i++
  :: else -> break
  od;
  i = 0
}

inline tick_others() {
  if :: age < USE -> age++ :: else fi;
  if :: valid > 0 -> valid-- :: else fi;
  if :: left > 0 -> left-- :: else fi;
  do
  :: i < REPLICAS ->
     if :: granted[i] > 0 -> granted[i]-- :: else fi;
     if :: orphaned[i] > 0 -> orphaned[i]-- :: else fi;
     i++
  :: else -> break
  od;
  i = 0
}

active proctype time() {
  byte i = 0;
  do
  :: d_step { tick_others(); tick_client() }
#if LAG
  :: d_step { !late -> tick_others(); late = true }
  :: d_step { late -> tick_client(); late = false }             /* it catches up */
#endif
  od
}

/* Whether no client of the replica can still decide on what the replica has evicted. */
#ifdef ACK_FIRST
#define ALL_FOLLOWED true
#else
#define ALL_FOLLOWED (orphaned[me] == 0 && (stream[me] == NO_STREAM || client_applied[me] == 1 || granted[me] == 0))
#endif

/* Once it has told the database, the revocation is over for it, and what it remembers of clients is idle. */
inline forget_clients() { granted[me] = 0; orphaned[me] = 0; client_applied[me] = 0 }

inline apply() {
  applied[me] = 1;
  if :: stream[me] == LIVE -> down!PUSHED, 0, 1 :: else fi
}

proctype replica(byte me) {
  mtype next = CLOCK;
  bit seen = 0;
  do
  /* A beat; and what a glance and a new feed connection do: to read the revision and evict, and renew no lease. */
  :: d_step { me == 0 && next == CLOCK -> age = 0; seen = revision; next = APPLY }
#ifdef SILENT_RESTART
  :: me == 0 && next == CLOCK -> applied[me] = revision
#else
  :: d_step { me == 0 && next == CLOCK && applied[me] == 0 -> seen = revision; next = APPLY }
#endif
  :: d_step { next == APPLY && nfull(down) ->
       if
       :: seen > applied[me] -> apply()
       :: else
       fi;
       seen = 0;
       if :: age < USE -> valid = USE - age; age = USE :: else fi;
       next = CLOCK }
  :: d_step { next != LEFT && applied[me] == 1 && row_applied[me] == 0 && ALL_FOLLOWED ->
       row_applied[me] = 1; forget_clients() }
#if REPLICAS > 1
  :: d_step { me == 1 && applied[me] == 0 && revision == 1 && nfull(down) -> apply() }
#else
  /* The end of the process. */
  :: d_step { next == CLOCK -> valid = 0; next = DRAIN }
#ifdef LEAVE_EARLY
  :: d_step { next == DRAIN ->
#else
  :: d_step { next == DRAIN && granted[me] == 0 && orphaned[me] == 0 ->
#endif
       row[me] = false; stream[me] = NO_STREAM; forget_clients(); next = LEFT }
#endif
  od
}

inline note_broken() {
#ifndef FORGET_BROKEN
  if :: client_applied[me] == 0 && granted[me] > orphaned[me] -> orphaned[me] = granted[me] :: else fi;
#endif
  granted[me] = 0; client_applied[me] = 0
}

/* The replica's end of WatchKeys. */
proctype serve(byte me) {
  bool opens = false;
  byte number = 0, theirs = 0, grant = 0;
  do
  :: d_step { home == me && nfull(down) && nempty(up) ->
       up?opens, number, theirs;
       if :: opens -> note_broken(); stream[me] = LIVE :: else fi;
       if
       :: stream[me] == LIVE ->
          grant = LONGEST_GRANT;
#ifdef NO_CAP
          if :: me == 0 && valid == 0 -> grant = 0 :: else fi;
#elif defined(GRANT_STALE)
          if :: me == 0 && valid > 0 && valid < grant -> grant = valid :: else fi;
#else
          if :: me == 0 && valid < grant -> grant = valid :: else fi;
#endif
          if
          :: row_applied[me] == 0 ->
             if :: theirs == 1 -> client_applied[me] = 1 :: else fi;
             /* One that is granted after the client was told is used after it has read what it was told. */
             if
             :: applied[me] == 0 && grant > 0 && grant + GRANT_MARGIN > granted[me] ->
                granted[me] = grant + GRANT_MARGIN
             :: else
             fi
          :: else
          fi;
          down!number, grant, applied[me]
       :: else
       fi;
       opens = false; number = 0; theirs = 0; grant = 0 }
  :: d_step { stream[me] != NO_STREAM -> note_broken(); stream[me] = NO_STREAM }
  od
}

/* Opens a stream. What was under way over the last one is lost. */
inline open_stream(to) {
  do :: nempty(up) -> up?_, _, _ :: empty(up) -> break od;
  do :: nempty(down) -> down?_, _, _ :: empty(down) -> break od;
  if :: stream[home] == LIVE -> stream[home] = DESERTED :: else fi;
  home = to;
#ifndef KEEP_RECORDS
  old = false;
#endif
#ifndef KEEP_LEASE
  lease = 0;
#endif
  known = UNKNOWN;
  do :: i < MESSAGES -> sent[i] = false; ago[i] = 0; i++ :: else -> break od;
  i = 0;
  sent[0] = true;
  up!true, 0, 0
}

active proctype client() {
  byte i = 0, number = 0, grant = 0;
  bit theirs = 0;
  do
  :: d_step { open_stream(home) }
#if REPLICAS > 1
  :: d_step { open_stream(1 - home) }
#endif

  /* A message, which acknowledges and asks for a lease. */
  :: d_step { known != UNKNOWN && !(sent[0] && sent[MESSAGES - 1]) ->
       i = (sent[0] -> 1 : 0);
       sent[i] = true;
       up!false, i, known;
       i = 0 }

  /* A message from the replica. The first over a stream tells where it starts, so there is nothing to drop for it. */
  :: d_step { nempty(down) ->
#ifdef LEASE_FIRST
       if :: down??[0, _, _] -> down??0, grant, theirs :: else -> down?number, grant, theirs fi;
#else
       down?number, grant, theirs;
#endif
       known = theirs;
       if
       :: number == PUSHED -> old = false
       :: else ->
#ifdef FROM_RECEIPT
          ago[number] = 0;
#endif
#ifdef FROM_LATEST
          if :: sent[1 - number] && ago[1 - number] < ago[number] -> ago[number] = ago[1 - number] :: else fi;
#endif
          if :: grant > ago[number] && grant - ago[number] > lease -> lease = grant - ago[number] :: else fi;
          sent[number] = false; ago[number] = 0
       fi;
       number = 0; grant = 0; theirs = 0 }

  /* The answer to a request, with the old record and revision 0, is kept. */
#ifdef NO_REVISION
  :: known != UNKNOWN -> old = true
#elif defined(EARLY_STORE)
  :: known == 0 || known == UNKNOWN -> old = true
#else
  :: known == 0 -> old = true
#endif

  /* A decision that starts now. */
  :: atomic { returned && old && lease > 0 -> assert(false) }
  od
}

active proctype revoke() {
  revision = 1;                                 /* commit */
  left = WAIT;                                  /* read the rows, and only then the clock */
  if
  :: row_applied[0] == 1
  :: !row[0]
  :: left == 0
  fi;
#if REPLICAS > 1
  row_applied[1] == 1;
#endif
  d_step { returned = true; left = 0 }
}

init {
  byte i = 0;
  atomic {
    do
    :: i < REPLICAS -> run replica(i); run serve(i); i++
    :: else -> break
    od }
}
