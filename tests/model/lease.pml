/* The lease protocol of docs/consistency.md: one key, its revocation, N replicas that load it, and a promotion.
 *
 * What must hold: no decision that starts after RevokeKey returned is made from memory on the old record.
 *
 * Every process may pause before each of its steps for as long as it likes. That covers slow networks, stopped
 * processes and lost notifications: a NOTIFY only makes a replica glance at the changes, which it may do at any time, so
 * it has no step of its own. Time passes in ticks and has no end, for no clock is read: whatever waits for a time is kept as the ticks that are left. Every
 * machine has a clock of its own, which may fall one tick behind and catch up again. The margins are for that.
 *
 * Taken for granted: what a promotion loses once RevokeKey has returned was all committed after the revocation, and
 * nobody reaches the old primary. Before that it may lose the revocation, and RevokeKey is called again.
 *
 * Each of these, given to spin as -D…, breaks one rule, and must fail the assertion:
 *   SWAP_BEAT         a beat reads the changes before its row is there
 *   LATE_CLOCK        the lease counts from the end of the beat
 *   LONG_USE          a replica uses its lease without leaving a margin
 *   SHORT_WAIT        the barrier waits for a lease without a margin
 *   NO_WAIT           there is no barrier
 *   EVICT_FIRST       a new feed connection evicts before it reads the revision, not after
 *   KEEP_RECORDS      a new feed connection evicts nothing
 *   NO_REVISION       a load is kept whatever the revision of its snapshot is
 *   NO_LIFE           a load is kept although everything was evicted while it was under way
 *   JOIN_LOADS        a request without a lease uses a load that was sent before the request began
 *   LEAVE_EARLY       a replica deregisters before it gives up its lease
 *   TRUST_ROWS        a mutator trusts the rows that a promotion left
 *   TRUST_COMMIT      a mutator does not ask whether it still reads from the timeline of its commit
 *   GLANCE_RENEWS     a glance renews the lease
 */
#ifndef N
#define N 1               /* replicas */
#endif
#ifndef BEATS_ONLY
#define BEATS_ONLY false  /* replicas that hold the old record and do nothing but beat */
#endif
#ifndef PROMOTIONS
#define PROMOTIONS 1      /* 0 or 1 */
#endif
#ifndef LAG
#define LAG 1             /* 0: all clocks run alike */
#endif
#ifndef LEASE
#define LEASE 3
#endif
#define MARGIN 1
#ifdef LONG_USE
#define USE LEASE
#else
#define USE (LEASE - MARGIN)
#endif
#ifdef SHORT_WAIT
#define WAIT LEASE
#else
#define WAIT (LEASE + MARGIN)
#endif

#ifdef SWAP_BEAT
#define AFTER_CLOCK READ
#define AFTER_READ UPSERT
#define AFTER_UPSERT APPLY
#else
#define AFTER_CLOCK UPSERT
#define AFTER_UPSERT READ
#define AFTER_READ APPLY
#endif

/* What a replica does next: the steps of a beat, those of a new feed connection, or nothing any more. */
mtype = { CLOCK, UPSERT, READ, APPLY, ACKNOWLEDGE, CONNECT, START, LEFT };

#define NONE 0
#define OLD  1            /* the record before the revocation */
#define NEW  2

/* The database. Where a promotion is to come, the clock begins one higher, by a mutation that the promotion loses. So
 * the revocation may get a number that was there before. */
byte revision = PROMOTIONS;
bool revoked = false;
bit timeline = 0;
bool trusted = true;      /* whether its rows are known to be whole */
bool row[N];
byte row_applied[N];
bool kept[N];             /* the row was there when the revocation committed; a promotion that keeps that keeps it */

bool returned = false;    /* RevokeKey has */

/* Clocks. */
byte age[N] = USE;        /* of the beat under way; USE: too old to give a lease */
byte valid[N];            /* what is left of the lease */
byte left = 0;            /* of the mutator's wait */
bool late[N + 1];         /* a machine's clock is a tick behind; the last is the mutator's */

inline tick(m) {
  if
  :: m < N ->
     if :: age[m] < USE -> age[m]++ :: else fi;
     if :: valid[m] > 0 -> valid[m]-- :: else fi
  :: else ->
     if :: left > 0 -> left-- :: else fi
  fi
}

active proctype time() {
  byte m = 0;
  do
  :: atomic {
       do
       :: m <= N ->
          if
          :: tick(m)
#if LAG
          :: !late[m] -> late[m] = true
#endif
          fi;
          m++
       :: else -> break
       od;
       m = 0 }
  od
}

proctype catch_up(byte m) {
  do :: d_step { late[m] -> tick(m); late[m] = false } od
}

proctype replica(byte me) {
  mtype next = CLOCK;
  bit fed = 0;            /* the timeline that the feed's connection leads to; a promotion breaks it */
  byte applied = PROMOTIONS, seen = 0;
  byte record = (BEATS_ONLY -> OLD : NONE);
  byte loaded = NONE, snapshot = 0;                     /* a load under way: what it has read, and at which revision */
  bool outlived = false;                                /* everything was evicted meanwhile */
#ifdef JOIN_LOADS
  bool joined = false;                                  /* by a request that began after RevokeKey returned */
#endif
  do
  /* A beat. */
  :: d_step { next == CLOCK -> age[me] = 0; next = AFTER_CLOCK }
  /* A glance at the changes: what a beat does, but for its row and its lease. */
#ifdef GLANCE_RENEWS
  :: d_step { next == CLOCK -> age[me] = 0; next = READ }
#else
  :: d_step { next == CLOCK -> next = READ }
#endif
  :: d_step { next == UPSERT && fed == timeline -> row[me] = true; row_applied[me] = applied; next = AFTER_UPSERT }
  :: d_step { next == READ && fed == timeline -> seen = revision; next = AFTER_READ }
  :: d_step { next == APPLY ->
       if :: seen > applied -> record = NONE :: else fi;
       applied = seen; seen = 0;
#ifdef LATE_CLOCK
       age[me] = 0;
#endif
       if :: age[me] < USE -> valid[me] = USE - age[me] :: else fi;
       age[me] = USE;
       next = ACKNOWLEDGE }
  :: d_step { next == ACKNOWLEDGE && fed == timeline ->
       if :: row[me] -> row_applied[me] = applied :: else fi;
       next = CLOCK }

  /* A new feed connection, at any moment. A lease that is there stays. */
  :: d_step { !BEATS_ONLY && next != START && next != LEFT -> seen = 0; age[me] = USE; next = CONNECT }
#ifdef EVICT_FIRST
  :: d_step { next == CONNECT -> record = NONE; outlived = (loaded != NONE); next = START }
  :: d_step { next == START -> fed = timeline; applied = revision; next = CLOCK }
#else
  :: d_step { next == CONNECT -> fed = timeline; seen = revision; next = START }
  :: d_step { next == START ->
#ifndef KEEP_RECORDS
       record = NONE; outlived = (loaded != NONE);
#endif
       applied = seen; seen = 0; next = CLOCK }
#endif

  /* The end of the process. */
  :: d_step { !BEATS_ONLY && next == CLOCK && fed == timeline ->
#ifndef LEAVE_EARLY
       valid[me] = 0;
#endif
       row[me] = false; next = LEFT }

  /* A load: one statement, over a connection that leads to the present primary. */
  :: d_step { !BEATS_ONLY && next != LEFT && record == NONE && loaded == NONE ->
       loaded = (revoked -> NEW : OLD); snapshot = revision }
#ifdef JOIN_LOADS
  :: loaded != NONE && returned -> joined = true
#endif
  :: atomic { loaded != NONE ->
       if
#ifndef NO_REVISION
       :: snapshot < applied
#endif
#ifndef NO_LIFE
       :: outlived
#endif
       :: else ->
#ifdef JOIN_LOADS
          if :: joined && loaded == OLD -> assert(false) :: else fi;
#endif
          record = loaded
       fi;
       loaded = NONE; snapshot = 0; outlived = false }

  /* A decision that starts now. */
  :: atomic { returned && record == OLD && valid[me] > 0 -> assert(false) }
  od
}

#ifdef TRUST_COMMIT
#define LOST false
#else
#define LOST (on != timeline)
#endif

proctype revoke() {
  byte i = 0, mine = 0;
  bit on = 0;             /* the timeline that it committed on */
  bool waits[N];
commit:
  atomic {                                                            /* or find that it is revoked already */
    i = 0; left = 0; on = timeline;
    if
    :: !revoked ->
       revoked = true; revision++;
       do :: i < N -> kept[i] = row[i]; i++ :: else -> break od;
       i = 0
    :: else
    fi;
    mine = revision }
#ifndef NO_WAIT
  do                                                                  /* read the rows, and only then the clock */
#ifdef TRUST_ROWS
  :: d_step { true ->
#else
  :: atomic { !trusted -> left = WAIT }                               /* the longest lease that there may be */
     atomic { left == 0 -> trusted = true }
  :: d_step { trusted && !LOST ->
#endif
       left = WAIT;
       do :: i < N -> waits[i] = row[i]; i++ :: else -> break od;
       i = 0 }
     break
  :: LOST -> goto commit
  od;
  do
  :: i < N ->
     if
     :: LOST -> goto commit
     :: !waits[i]
     :: row[i] && row_applied[i] >= mine
     :: !row[i]                                                       /* deregistered */
     :: left == 0 -> row[i] = false
     fi;
     i++
  :: else -> break
  od;
#endif
  if
  :: LOST -> goto commit
  :: atomic { !LOST -> returned = true }
  fi
}

#if PROMOTIONS
active proctype promotion() {
  byte i = 0;
  atomic {
    timeline = 1; trusted = false;
    if
    :: !revoked -> revision = 0
    :: revoked && !returned ->
       revoked = false; revision = 0;
       do :: i < N -> kept[i] = false; i++ :: else -> break od;
       i = 0
    :: true
    fi;
    do
    :: i < N ->
       if
       :: !kept[i] -> row[i] = false; row_applied[i] = 0
       :: row_applied[i] > revision -> row_applied[i] = revision
       :: row_applied[i] <= revision
       fi;
       i++
    :: else -> break
    od }
}
#endif

init {
  byte i = 0;
  atomic {
    do :: i < N -> run replica(i); run catch_up(i); i++ :: else -> break od;
    run catch_up(N);
    run revoke() }
}
