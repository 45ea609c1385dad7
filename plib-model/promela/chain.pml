/*
 * A chain line leaves its bucket while others read, and its mover may die: no item is hidden, none comes back.
 *
 * | here | in the code |
 * | --- | --- |
 * | line, word 1 of it | index/line.rs: its last slot word is an item or a link |
 * | moves              | index/line.rs: Line::moves, count_move |
 * | Mover, shrink      | cache/remove.rs: delete; index/bucket.rs: shrink, move_up; cache/lock.rs: shrink |
 * | Second             | another delete, which takes over and scrubs: index/bucket.rs: scrub |
 * | Reader             | index/mod.rs: lookup |
 * | Adopter            | recover.rs: resolve_lines, links_to |
 *
 * Lines have two slot words. Line 0 is the bucket, line 1 the chain line, and at first
 * line 0 = { key 0, link }, line 1 = { key 1, key 2 }. Macros: DEATHS (the mover's).
 */

#define MOVER     1
#define SECOND    2
#define READER    3
#define ADOPTER   4
#define CLAIMER   5
#define PROCESSES 5
#define FREEZES   0
#include "step.pml"

bool p1_read_was_current = true;
bool p1_nothing_is_lost = true;     /* at the end each item stands once */
bool p3_all_have_ended = true;
bool p4_one_holder = true;
bool p4_nothing_leaks = true;       /* the chain line is linked or free, and no intent names it */
bool p5_retry_means_progress = true;

#define LINK    7
#define FOREIGN 6           /* an item of another bucket */
#define ITEM(key) (1 + (key))
#define AT(line, i) words[(line) * 2 + (i)]

byte words[4];
byte lock;
byte moves;
bool line_free;             /* the chain line's meta word: Free or Live, */
byte line_version = 1;      /* and which life */
byte intent[PROCESSES + 1]; /* `unlinked`: the life of the line being taken out */

bool ghost_there[3];        /* what the commits say */
byte ghost_readable;        /* bit 0: it may be missed, bit 1: it may be found */
bool ghost_foreign;         /* the line is another bucket's now */
byte ghost_changes;         /* deletes and moves */

#define IS_DEAD(p) (!client_alive[p])

inline unlock() {
    STEP(CHECK(p4_one_holder, lock == me); lock = 0)
}

/* Line::count_move */
inline count_move() {
    STEP(moves++; ghost_changes++)
}

/* Op::lock and take_over. What is dead stays dead, and only one exchange succeeds: one step. */
inline lock_bucket() {
    STEP(if
         :: lock == 0 -> lock = me
         :: lock != 0 && IS_DEAD(lock) -> lock = me; heir = true
         fi);
#ifndef M_TAKE_OVER_WITHOUT_SCRUB
    if
    :: heir -> scrub()
    :: else
    fi;
#endif
    heir = false
}

/* Bucket::scrub: what stands before in the chain goes. */
inline scrub() {
    STEP(s = AT(0, 0));
    STEP(t = AT(0, 1));
    if
    :: t == LINK && s != 0 ->
        i = 0;
        do
        :: i < 2 ->
            STEP(t = AT(1, i));
            if
            :: t == s -> count_move(); STEP(AT(1, i) = 0)
            :: else
            fi;
            i++
        :: else -> break
        od
    :: else
    fi;
    i = 0; s = 0; t = 0
}

/* Removes the first slot word of a key; the commit. */
inline delete(key) {
    i = 0; chained = false;
    STEP(t = AT(0, 1));
    chained = (t == LINK);
    do
    :: i < 4 ->
        STEP(s = words[i]);
        if
        :: s == ITEM(key) -> break
        :: else -> i = (i == 1 && !chained -> 4 : i + 1)
        fi
    :: else -> break
    od;
    if
    :: i < 4 ->
        STEP(CHECK(p4_one_holder, lock == me); words[i] = 0;
             ghost_there[key] = false; ghost_readable = ghost_readable | ((key) == READ -> 1 : 0); ghost_changes++)
    :: else
    fi;
    i = 0; s = 0; t = 0
}

/* Bucket::shrink of the one chain line, if what it holds fits before it. */
inline shrink() {
    STEP(t = AT(0, 1));
    if
    :: t == LINK ->
        STEP(s = AT(1, 0));
        STEP(t = AT(1, 1));
        STEP(fits = (AT(0, 0) == 0 || s == 0 || t == 0));
        if
        :: fits ->
            /* move_up: all but one are copied to vacant places; that one takes the link's. */
            if
            :: s != 0 && t != 0 -> STEP(AT(0, 0) = t)
            :: else -> s = (s == 0 -> t : s)
            fi;
            STEP(intent[me] = line_version);
#ifndef M_NO_MOVE_COUNTED_BEFORE
            count_move();
#endif
            STEP(CHECK(p4_one_holder, lock == me); AT(0, 1) = s);
#ifndef M_NO_MOVE_COUNTED_AFTER
            count_move();
#endif
            STEP(line_free = true);
            STEP(intent[me] = 0)
        :: else
        fi
    :: else
    fi;
    s = 0; t = 0; fits = false
}

proctype Writer(byte me; byte key; bool mortal) {
    byte i, s, t;
    bool heir, chained, fits;

    lock_bucket();
    delete(key);
    shrink();
    unlock();
    ghost_over[me] = true;
died:
    atomic { i = 0; s = 0; t = 0; heir = 0; chained = 0; fits = 0; mortal = 0 }
}

/* Whoever gets the freed line: another bucket, or this one, full again, for a key that is not there (Bucket::extend). */
active proctype Claimer() {
end:
    line_free ->
    if
    :: atomic { line_free -> line_free = false; line_version++; ghost_foreign = true }
       AT(1, 0) = FOREIGN; AT(1, 1) = 0
    :: atomic { lock == 0 -> lock = CLAIMER }
       if
       :: line_free && !ghost_there[READ] && AT(0, 0) != 0 && AT(0, 1) != 0 && AT(0, 1) != LINK ->
            atomic { line_free = false; line_version++ }
            AT(1, 0) = AT(0, 1);
            AT(1, 1) = ITEM(READ);
            /* The commit. */
            atomic { AT(0, 1) = LINK; ghost_there[READ] = true; ghost_readable = ghost_readable | 2; ghost_changes++ }
       :: else
       fi;
       lock = 0
    fi
}

proctype Reader(byte me) {
    byte s, last, seen, now, changes;
    bool found, chained;

    atomic { ghost_readable = (ghost_there[READ] -> 2 : 1) }
    do
    :: true ->
        found = false;
        atomic { seen = moves; changes = ghost_changes }
        /* The last word is read once: an item or a link, whichever it was. */
        last = AT(0, 1);
        chained = false;
        s = AT(0, 0);
        found = (s == ITEM(READ) || last == ITEM(READ));
        if
        :: !found && last == LINK ->
            chained = true;
            last = AT(1, 1);
            s = AT(1, 0);
            found = (s == ITEM(READ) || last == ITEM(READ))
        :: else
        fi;
        now = moves;
#ifdef M_MISS_WITHOUT_MOVES
        now = (found -> now : seen);
#endif
#ifdef M_HIT_WITHOUT_MOVES
        now = (found -> seen : now);
#endif
        if
        :: found && !chained || now == seen ->
            atomic { CHECK(p1_read_was_current, ghost_readable & (found -> 2 : 1)); break }
        :: else -> atomic { CHECK(p5_retry_means_progress, ghost_changes != changes) }
        fi
    od;
    atomic { s = 0; last = 0; seen = 0; now = 0; found = 0; chained = 0; ghost_over[me] = true }
}

/* Op::resolve of the mover's context. */
proctype Adopter(byte me) {
    byte i, s, t, life;
    bool heir, mortal, linked;

    !client_alive[MOVER] && (intent[MOVER] != 0 || lock == MOVER);
    /* unlock_left */
    if
    :: lock == MOVER -> lock_bucket(); unlock()
    :: else
    fi;
    atomic { life = line_version; linked = line_free }
    if
    :: !linked && intent[MOVER] == life ->
        /* links_to */
        lock_bucket();
        linked = (AT(0, 1) == LINK);
#ifndef M_NO_MOVE_COUNTED_BY_ADOPTER
        if
        :: !linked -> count_move()
        :: else
        fi;
#endif
        unlock();
        /* block::release, of that life only */
        if
        :: !linked -> atomic { if :: life == line_version -> line_free = true :: else fi }
        :: else
        fi
    :: else
    fi;
    intent[MOVER] = 0;
died:
    skip
}

proctype Judge() {
    byte key, i, found;
    timeout;
    d_step {
        CHECK(p3_all_have_ended, ghost_over[READER] && ghost_over[SECOND] && (ghost_over[MOVER] || !client_alive[MOVER]));
        CHECK(p4_nothing_leaks, intent[MOVER] == 0 && intent[SECOND] == 0 && lock == 0
              && (line_free || ghost_foreign) == (AT(0, 1) != LINK));
        key = 0;
        do
        :: key < 3 ->
            found = 0; i = 0;
            do
            :: i < (AT(0, 1) == LINK -> 4 : 2) -> found = found + (words[i] == ITEM(key)); i++
            :: else -> break
            od;
            CHECK(p1_nothing_is_lost, found == ghost_there[key]);
            key++
        :: else -> break
        od
    }
}

init {
    byte i;
    atomic {
        everybody_lives();
        AT(0, 0) = ITEM(0); AT(0, 1) = LINK; AT(1, 0) = ITEM(1); AT(1, 1) = ITEM(2);
        ghost_there[0] = true; ghost_there[1] = true; ghost_there[2] = true;
        run Writer(MOVER, 0, true);
        run Writer(SECOND, 2, false);
        run Reader(READER);
        run Adopter(ADOPTER);
        run Judge()
    }
}
