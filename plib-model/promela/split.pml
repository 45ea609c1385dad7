/*
 * One step of growth: bucket 0 gives a part of its items to bucket 1, while others read and write both.
 *
 * | here | in the code |
 * | --- | --- |
 * | growth, BUCKET_OF | index/growth.rs: {level, split}, Growth::bucket |
 * | Splitter          | cache/grow.rs: split_with; index/split.rs: split |
 * | Writer            | cache/lock.rs: lock_key; index/bucket.rs: search, holds, vacant, commit |
 * | Reader            | index/mod.rs: lookup |
 * | scrub             | index/bucket.rs: scrub |
 *
 * A slot word is key and value here: what is behind it is in `bucket.pml`. A dead holder's lock is taken by whoever wants
 * the bucket. Macros: DEATHS (of the first splitter and the writer), READ (the key that is read), WRITE (what the writer does).
 */

#define FIRST     1
#define SECOND    2
#define WRITER    3
#define READER    4
#define PROCESSES 4
#define FREEZES   0
#include "step.pml"

bool p1_read_was_current = true;
bool p1_stored_is_found = true;     /* a writer finds under the lock what was committed last */
bool p1_nothing_is_lost = true;     /* at the end each item stands once, where it belongs */
bool p4_one_holder = true;
bool p5_retry_means_progress = true;
bool p3_all_have_ended = true;

#define SLOTS 3
#define SLOT(key, value) (1 + (key) | (value) << 3)
#define KEY(s)   (((s) & 7) - 1)
#define VALUE(s) ((s) >> 3)
#define AT(bucket, i) slots[(bucket) * SLOTS + (i)]

/* Even keys stay; odd ones move when growth is 1. */
#define BUCKET_OF(growth, key) ((key) & (growth))

byte growth;
byte slots[2 * SLOTS];
byte lock[2];

byte ghost_current[4];      /* what the commits say; 0 is none */
byte ghost_readable;        /* of the key READ: what was current since the reader began, a bit each */
bool ghost_writes;          /* whether the writer has committed */

#define COMMITTED(key, value) \
    ghost_current[key] = value; \
    ghost_readable = ghost_readable | ((key) == READ -> 1 << (value) : 0)

#define IS_DEAD(p) (!client_alive[p])

/* Waits for a live holder, takes over from a dead one and cleans: Op::lock. */
inline lock_bucket(bucket) {
    STEP(if
         :: lock[bucket] == 0 -> lock[bucket] = me; i = SLOTS
         :: lock[bucket] != 0 && IS_DEAD(lock[bucket]) -> lock[bucket] = me; i = 0
         fi);
    g = growth;
    do
    :: i < SLOTS ->
        STEP(if
             :: AT(bucket, i) != 0 && BUCKET_OF(g, KEY(AT(bucket, i))) != bucket -> AT(bucket, i) = 0
             :: else
             fi; i++)
    :: else -> break
    od;
    i = 0
}

inline unlock(bucket) {
    STEP(CHECK(p4_one_holder, lock[bucket] == me); lock[bucket] = 0)
}

proctype Splitter(byte me; bool mortal) {
    byte g, i, to, s;
    bool got;

    STEP(g = growth);
    if
    :: g == 0 ->
        /* try_lock_key, with the growth word once more under the lock. */
        STEP(if
             :: lock[0] == 0 -> lock[0] = me; got = true
             :: lock[0] != 0 && IS_DEAD(lock[0]) -> lock[0] = me; got = true
             :: else
             fi);
        if
        :: got ->
            STEP(g = growth);
            if
            :: g == 0 ->
#ifdef M_COMMIT_BEFORE_FILL
                STEP(growth = 1);
#endif
                /* Line::reset: nobody can reach it; what a dead splitter left there goes. */
#ifndef M_TARGET_NOT_CLEARED
                i = 0;
                do
                :: i < SLOTS -> STEP(AT(1, i) = 0); i++
                :: else -> break
                od;
#endif
                i = 0; to = 0;
                do
                :: i < SLOTS ->
                    STEP(s = AT(0, i));
                    if
                    :: s != 0 && BUCKET_OF(1, KEY(s)) == 1 -> STEP(AT(1, to) = s); to++
                    :: else
                    fi;
                    i++
                :: else -> break
                od;
                /* The commit. */
                STEP(if
                     :: growth == 0 -> growth = 1
                     :: else
                     fi);
                i = 0;
                do
                :: i < SLOTS ->
                    STEP(if
                         :: AT(0, i) != 0 && BUCKET_OF(1, KEY(AT(0, i))) == 1 -> AT(0, i) = 0
                         :: else
                         fi);
                    i++
                :: else -> break
                od
            :: else
            fi;
            unlock(0)
        :: else
        fi
    :: else
    fi;
    ghost_over[me] = true;
died:
    atomic { g = 0; i = 0; to = 0; s = 0; got = 0; mortal = 0 }
}

/* Bucket::search: the item's place, else the first that holds none. */
inline search(key) {
    i = 0; place = SLOTS; vacant = SLOTS;
    g = growth;                 /* Bucket::locked */
    do
    :: i < SLOTS ->
        STEP(s = AT(n, i));
        if
        :: s != 0 && BUCKET_OF(g, KEY(s)) == n && KEY(s) == key && place == SLOTS -> place = i; value = VALUE(s)
        :: s != 0 && BUCKET_OF(g, KEY(s)) == n && KEY(s) != key
        :: (s == 0 || BUCKET_OF(g, KEY(s)) != n) && vacant == SLOTS -> vacant = i
        :: else
        fi;
        i++
    :: else -> break
    od
}

proctype Writer(byte me) {
    byte g, n, i, s, place, vacant, key, value;
    bool mortal = true, delete;

    if
    :: key = 0
    :: key = 1
    :: key = 2
    :: key = 3
    :: key = 1; delete = true
    fi;
    do
    :: STEP(g = growth); n = BUCKET_OF(g, key);
       lock_bucket(n);
#ifndef M_NO_GROWTH_CHECK_UNDER_LOCK
       STEP(g = growth);
       if
       :: BUCKET_OF(g, key) == n -> break
       :: else -> unlock(n)
       fi
#else
       break
#endif
    od;
    value = 0;
    search(key);
    atomic { CHECK(p1_stored_is_found, value == ghost_current[key]) }
    place = (place < SLOTS -> place : vacant);
    if
    :: delete && value != 0 -> STEP(CHECK(p4_one_holder, lock[n] == me); AT(n, place) = 0; COMMITTED(key, 0))
    :: !delete && place < SLOTS -> STEP(CHECK(p4_one_holder, lock[n] == me); AT(n, place) = SLOT(key, 2); COMMITTED(key, 2))
    :: else
    fi;
    unlock(n);
    ghost_over[me] = true;
died:
    atomic { g = 0; n = 0; i = 0; s = 0; place = 0; vacant = 0; key = 0; value = 0; mortal = 0; delete = 0 }
}

proctype Reader(byte me) {
    byte before, after, n, i, s, value;
    bool same;

    atomic { ghost_readable = 1 << ghost_current[READ] }
    do
    :: true ->
        before = growth;
        n = BUCKET_OF(before, READ);
        i = 0; value = 0; same = true;
        do
        :: i < SLOTS && value == 0 && same ->
            s = AT(n, i);
            if
            :: s != 0 && KEY(s) == READ ->
                /* probe: the slot word again, after the copy. */
                same = (AT(n, i) == s);
                value = VALUE(s)
            :: else
            fi;
            i++
        :: else -> break
        od;
        after = growth;
#ifdef M_NO_GROWTH_CHECK
        after = before;
#endif
        if
        :: same && BUCKET_OF(after, READ) == n ->
            atomic { CHECK(p1_read_was_current, ghost_readable & (1 << value)); break }
        :: else -> atomic { CHECK(p5_retry_means_progress, !same || after != before) }
        fi
    od;
    atomic { before = 0; after = 0; n = 0; i = 0; s = 0; value = 0; same = 0; ghost_over[me] = true }
}

proctype Judge() {
    byte i, key, found;
    timeout;
    d_step {
        CHECK(p3_all_have_ended, ghost_over[READER] && ghost_over[SECOND] && (ghost_over[FIRST] || !client_alive[FIRST])
              && (ghost_over[WRITER] || !client_alive[WRITER]));
        key = 0;
        do
        :: key < 4 ->
            found = 0; i = 0;
            do
            :: i < 2 * SLOTS ->
                if
                :: slots[i] != 0 && KEY(slots[i]) == key && BUCKET_OF(growth, key) == i / SLOTS ->
                    CHECK(p1_nothing_is_lost, found == 0 && VALUE(slots[i]) == ghost_current[key]);
                    found = 1
                :: else
                fi;
                i++
            :: else -> break
            od;
            CHECK(p1_nothing_is_lost, found == (ghost_current[key] != 0));
            key++
        :: else -> break
        od
    }
}

init {
    byte i;
    atomic {
        everybody_lives();
        AT(0, 0) = SLOT(0, 1); ghost_current[0] = 1;
        AT(0, 1) = SLOT(1, 1); ghost_current[1] = 1;
        /* What a splitter left that died before its commit, long ago. */
        AT(1, 0) = SLOT(3, 3);
        AT(1, 2) = SLOT(1, 3);
        run Splitter(FIRST, true);
        run Splitter(SECOND, false);
        run Writer(WRITER);
        run Reader(READER);
        run Judge()
    }
}
