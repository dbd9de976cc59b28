/* The lease protocol of docs/consistency.md: one replica, the revocations of two keys, the rows that mutators delete
 * when a lease has run out, and promotions that lose rows.
 *
 * What must hold: no decision that starts after a revocation returned is made from memory on that key's old record.
 *
 * Pauses and time are as in lease.pml, but all clocks run alike here; lease.pml shows what happens where they do not.
 *
 * Taken for granted: what a promotion loses was all committed after the last revocation, nobody reaches the old
 * primary, and no two beats on one timeline have the same number. A mutator that finds another timeline than that of its
 * commit gives up; here it goes on, like the caller who then repeats it. lease.pml has the commits that are lost.
 *
 * Each of these, given to spin as -D…, breaks one rule, and must fail the assertion:
 *   SWAP_BEAT         a beat reads the changes before its row is there
 *   FROM_COMMIT       the barrier counts from the commit, not from when it has read the rows
 *   HELD              a decision takes its record first and checks the lease later
 *   ANY_BEAT          the barrier deletes a row although the replica has beaten since
 *   ANY_TIMELINE      … if the beat has the same number, as can happen after a promotion
 *   TRUST_ROWS        a mutator trusts the rows that a promotion left
 *   TRUST_PRESENT     having waited, a mutator calls the present timeline's rows whole, not those that it found wanting
 */
#ifndef PROMOTIONS
#define PROMOTIONS 1
#endif
#ifndef LEASE
#define LEASE 2
#endif
#define MARGIN 1
#define NO_TIMELINE 9
#define USE (LEASE - MARGIN)
#define WAIT (LEASE + MARGIN)

#ifdef SWAP_BEAT
#define AFTER_CLOCK READ
#define AFTER_READ UPSERT
#define AFTER_UPSERT APPLY
#else
#define AFTER_CLOCK UPSERT
#define AFTER_UPSERT READ
#define AFTER_READ APPLY
#endif

mtype = { CLOCK, UPSERT, READ, APPLY, ACKNOWLEDGE };

/* The database. The mutators commit in the order of their numbers: that of mutator 0 is revision 1. */
byte revision = 0;
byte timeline = 0;
byte trusted = NO_TIMELINE; /* the one whose rows are known to be whole; at first, as after a restored backup, none */
bool row = false;
byte row_applied = 0;
bool kept = false;        /* the row was there at the latest commit; a promotion after that keeps both */
bool remembered[2];       /* the row's beat is still the one that this mutator has read */

bool returned[2];

/* What is left of times, in ticks. */
byte age = USE;           /* of the beat under way; USE: too old to give a lease */
byte valid = 0;           /* of the lease */
byte left[3];             /* of a mutator's wait */

active proctype time() {
  do
  :: d_step {
       if :: age < USE -> age++ :: else fi;
       if :: valid > 0 -> valid-- :: else fi;
       if :: left[0] > 0 -> left[0]-- :: else fi;
       if :: left[1] > 0 -> left[1]-- :: else fi;
       if :: left[2] > 0 -> left[2]-- :: else fi }
  od
}

#define MISTAKEN (old[0] && returned[0] || old[1] && returned[1])

active proctype replica() {
  mtype next = CLOCK;
  byte fed = 0;           /* the timeline that the feed's connection leads to; a promotion breaks it */
  byte applied = 0, seen = 0;
  bool old[2];            /* whether it has the key's record from before the revocation */
#ifdef HELD
  bool held = false;      /* … and a request, one that began after the revocation returned, holds it */
#endif
  d_step { old[0] = true; old[1] = true }
  do
  /* A beat. */
  :: d_step { next == CLOCK -> age = 0; next = AFTER_CLOCK }
  :: d_step { next == CLOCK -> next = READ }                          /* a glance: a look without a beat */
  :: d_step { next == UPSERT && fed == timeline ->
       row = true; row_applied = applied;
       remembered[0] = false; remembered[1] = false;
       next = AFTER_UPSERT }
  :: d_step { next == READ && fed == timeline -> seen = revision; next = AFTER_READ }
  :: d_step { next == APPLY ->
       if :: seen >= 1 -> old[0] = false :: else fi;
       if :: seen >= 2 -> old[1] = false :: else fi;
       applied = seen; seen = 0;
       if :: age < USE -> valid = USE - age :: else fi;
       age = USE;
       next = ACKNOWLEDGE }
  :: d_step { next == ACKNOWLEDGE && fed == timeline ->
       if :: row -> row_applied = applied :: else fi;
       next = CLOCK }

  /* After a promotion, a new feed connection. All is evicted, and loaded again. */
  :: d_step { fed != timeline ->
       fed = timeline; applied = revision; seen = 0; age = USE;
       old[0] = revision < 1; old[1] = revision < 2;
       next = CLOCK }

  /* A decision that starts now. */
#ifdef HELD
  :: !held && MISTAKEN -> held = true
  :: atomic { held && valid > 0 -> assert(false) }
#else
  :: atomic { MISTAKEN && valid > 0 -> assert(false) }
#endif
  od
}

proctype revoke(byte me) {
  byte on = 0;            /* the timeline on which it has read the rows */
  bool waits = false;
  atomic { revision == me -> revision++; kept = row;                  /* commit */
#ifdef FROM_COMMIT
    left[me] = WAIT
#endif
  }
  do
  :: atomic { on = timeline;                                          /* read the rows, and only then the clock */
       if
#ifndef TRUST_ROWS
       :: trusted != on -> left[me] = WAIT                            /* the longest lease that there may be */
       :: else ->
#else
       :: true ->
#endif
          waits = row; remembered[me] = row;
#ifndef FROM_COMMIT
          left[me] = WAIT;
#endif
          break
       fi }
     atomic { left[me] == 0 ->
#ifdef TRUST_PRESENT
       trusted = timeline }
#else
       trusted = on }
#endif
  od;
  do
  :: atomic { !waits || row && row_applied > me || !row -> break }
  :: atomic { left[me] == 0 ->
       if
       :: remembered[me] && on == timeline -> row = false; remembered[1 - me] = false
#ifdef ANY_BEAT
       :: waits -> row = false
#endif
#ifdef ANY_TIMELINE
       :: waits && row && on < timeline -> row = false
#endif
       :: else
       fi;
       break }
  od;
  atomic { remembered[me] = false; left[me] = 0; on = 0; waits = false; returned[me] = true }
}

/* The mutations of other keys matter here only in that each may find the rows untrusted, and wait. */
active proctype others() {
  byte on = 0;
  do
  :: atomic { trusted != timeline && left[2] == 0 -> on = timeline; left[2] = WAIT }
     atomic { left[2] == 0 -> trusted = on; on = 0 }
  od
}

#if PROMOTIONS
active proctype promotion() {
  do
  :: atomic { timeline < PROMOTIONS ->
       timeline++;
       if
       :: !kept -> row = false; row_applied = 0; remembered[0] = false; remembered[1] = false
       :: row || kept -> row = true; row_applied = 0; remembered[0] = false; remembered[1] = false /* as it once was */
       :: row_applied = 0                                                  /* only the acknowledgement is lost */
       :: true
       fi }
  :: else -> break
  od
}
#endif

init { atomic { run revoke(0); run revoke(1) } }
