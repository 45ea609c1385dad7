/*
 * The life of an entry: its expiry and the flush epoch. What is over is never returned, and nothing else is lost.
 *
 * | here | in the code |
 * | --- | --- |
 * | Times, life | cache/mod.rs: Times::life, epoch; the clock is read once an operation, when it is first asked for |
 * | Getter      | cache/read.rs: take_out; cache/fast.rs: get_fast |
 * | Setter      | cache/store.rs: commit, publish: judged under the lock, stamped with the epoch under the lock |
 * | Toucher     | cache/remove.rs: touch_if |
 * | Hand        | evict.rs: take_live, evict_locked with `only_dead` |
 * | Flusher     | cache/remove.rs: flush_all without a delay |
 *
 * One key, one slot word; blocks are never reused here (`bucket.pml` has that). The clock ticks once. Macros: ADD: the
 * setter's store is an add; DEATHS (of the setter).
 */

#define SETTER    1
#define GETTER    2
#define PROCESSES 2
#define FREEZES   0
#include "step.pml"

bool p1_read_was_current = true;    /* a value that was alive at some moment of the read, or a miss that was one */
bool p1_condition_was_true = true;  /* add is refused only if an item was alive meanwhile, and stores only if none was */
bool p1_reclaimed_was_dead = true;  /* the hand takes as dead only what is dead */
bool p2_dead_is_not_returned = true;
bool p3_all_have_ended = true;

byte now;                   /* 0 or 1 */
byte flush;                 /* the epoch */
byte slot = 1;              /* 1 + the block */
byte epoch[2];
byte expiry[2];             /* 0 is never; else dead from then on */
byte lock;

/* Block 0 is stored first, with expiry 2, by macro or never; block 1 is what the setter stores. */
#define ALIVE_NOW(block) (epoch[block] == flush && (expiry[block] == 0 || expiry[block] > now + 1))
#define CURRENT (slot != 0 && ALIVE_NOW(slot - 1) -> slot : 0)
byte ghost_readable;        /* of the getter: a bit for each block (1 + block) that was current, bit 0 for none */
byte ghost_judged;          /* the same for the setter */
bool ghost_touched;

/* After each change, in the same step. */
#define NOTE ghost_readable = ghost_readable | (1 << CURRENT); ghost_judged = ghost_judged | (1 << CURRENT)

active proctype Clock() {
    atomic { now = 1; NOTE }
}

active proctype Flusher() {
    /* Taken or not: with and without a flush. */
    if
    :: atomic { flush = flush + 1; NOTE }
    :: true
    fi
}

#ifdef M_EPOCH_NOT_CHECKED
#define LOOK_AT_EPOCH(block) alive = true
#else
#define LOOK_AT_EPOCH(block) e = flush; alive = (epoch[block] == e)
#endif

/* Whether a block is alive: sets `alive`. The clock is read when it is asked for first. */
inline life(block) {
    x = expiry[block];
    LOOK_AT_EPOCH(block);
#ifdef M_EXPIRY_NOT_CHECKED
    if
    :: false ->
#else
    if
    :: alive && x != 0 ->
#endif
        if
        :: clock == 0 -> clock = now + 1
        :: else
        fi;
        alive = (x > clock)
    :: else
    fi;
    e = 0
}

proctype Getter(byte me) {
    byte s, e, x, clock;
    bool alive, same;

    atomic { ghost_readable = 1 << CURRENT }
    do
    :: true ->
        s = slot;
        same = true;
        if
        :: s != 0 ->
            life(s - 1);
#ifndef M_EXPIRY_NOT_LOOKED_AT_AGAIN
            /* Times::life_unlocked: the clock was read after the word, and a touch may have come between. */
            same = (alive || expiry[s - 1] == x);
#endif
            /* Validated: the slot word again. */
            same = (same && slot == s)
        :: else
        fi;
        if
        :: same && s != 0 && alive -> atomic { CHECK(p2_dead_is_not_returned, ghost_readable & (1 << s)); break }
        :: same && !(s != 0 && alive) -> atomic { CHECK(p1_read_was_current, ghost_readable & 1); break }
        :: else
        fi
    od;
    atomic { s = 0; x = 0; alive = 0; same = 0; clock = 0; ghost_over[me] = true }
}

proctype Setter(byte me) {
    byte s, e, x, clock;
    bool alive, mortal = true;

    atomic { ghost_judged = 1 << CURRENT }
    STEP(lock == 0 -> lock = SETTER);
    STEP(s = slot);
    if
    :: s != 0 -> life(s - 1)
    :: else
    fi;
#ifdef ADD
    if
    :: alive -> atomic { CHECK(p1_condition_was_true, ghost_judged & 6) }
    :: else ->
        /* Judged dead or absent: some time since the add began it was. */
        atomic { CHECK(p1_condition_was_true, ghost_judged & 1) }
#else
    if
    :: true ->
#endif
        /* publish: Times::epoch, then Claimed to Live with it. */
        e = flush;
        STEP(epoch[1] = e);
        STEP(slot = 2; NOTE)
    fi;
    STEP(lock = 0);
    ghost_over[me] = true;
died:
    atomic { s = 0; e = 0; x = 0; clock = 0; alive = 0; mortal = 0 }
}

/* Gives the first item more time, if it is alive. */
active proctype Toucher() {
    byte s, e, x, clock;
    bool alive;

end:
    atomic { lock == 0 || lock == SETTER && !client_alive[SETTER] -> lock = 3 }
    s = slot;
    if
    :: s != 0 -> life(s - 1)
    :: else
    fi;
    if
    :: alive -> atomic { expiry[s - 1] = 0; NOTE }
    :: else
    fi;
    atomic { lock = 0; s = 0; x = 0; clock = 0; alive = false }
}

/* A hand that comes by: what it finds dead, it takes if it still is under the lock. */
active proctype Hand() {
    byte s, e, x, clock;
    bool alive;

    s = slot;
    if
    :: s != 0 -> life(s - 1)
    :: else
    fi;
    if
    :: s != 0 && !alive ->
        if
        :: atomic { lock == 0 -> lock = 4 }
            /* The same item still? And still dead? */
            alive = (slot != s);
#ifndef M_EXPIRY_NOT_CHECKED_UNDER_LOCK
            if
            :: !alive -> life(s - 1)
            :: else
            fi;
#endif
            if
            :: !alive && slot == s -> atomic { CHECK(p1_reclaimed_was_dead, !ALIVE_NOW(s - 1)); slot = 0; NOTE }
            :: else
            fi;
            lock = 0
        :: lock != 0
        fi
    :: else
    fi;
    atomic { s = 0; x = 0; clock = 0; alive = false }
}

active proctype Judge() {
    timeout;
    CHECK(p3_all_have_ended, ghost_over[GETTER] && (ghost_over[SETTER] || !client_alive[SETTER]))
}

init {
    byte i;
    atomic {
        everybody_lives();
        expiry[0] = 2;
        run Getter(GETTER);
        run Setter(SETTER)
    }
}
