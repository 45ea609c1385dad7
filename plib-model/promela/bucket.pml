/*
 * The bucket protocol: writers that may die or stop between any two steps, readers, and survivors who recover the dead.
 * docs/model.md says what it shows, and which macros make which configuration; scripts/model runs it.
 *
 * | macro | |
 * | --- | --- |
 * | KEYS       | keys, each with a bucket of one slot: 1 or 2 |
 * | BLOCKS     | blocks, 2 to 4; block 0 holds key 0's first value |
 * | WRITERS    | 1 or 2; FIRST and SECOND say what they do |
 * | READERS    | 0 or 1, of key 0 |
 * | ADOPTERS   | 0 to 2; the last one is immortal |
 * | DEATHS, FREEZES | how many processes may die, or stop for ever |
 * | EVICTIONS  | how often a writer may take a live item's block |
 * | PATIENCE   | tries after which a writer answers BUSY; without it the loop of tries is one step |
 */

#ifndef EVICTIONS
#define EVICTIONS 0
#endif
#define CONTEXTS WRITERS
#define READER   (WRITERS + 1)
#define ADOPTER  (WRITERS + READERS + 1)
#define PROCESSES (WRITERS + READERS + ADOPTERS + 1)
/* Never alive: marks contexts that were given up. */
#define NO_CLIENT PROCESSES

#include "step.pml"
#include "words.pml"

bool ghost_started[PROCESSES + 1];
bool ghost_given_up[CONTEXTS + 1];

#include "lock.pml"
#include "write.pml"
#include "recover.pml"
#if READERS
#include "read.pml"
#endif

/* What a writer may be told to do; the value tells who stored it. */
#define SET0(value)    set(0, value)
#define SET1(value)    set(KEYS - 1, value)
#define DELETE0(value) delete(0)
#define ANY(value)     if :: set(0, value) :: delete(0) :: set(KEYS - 1, value) fi
#define TWICE(value)   set(0, value); set(0, value + 2)
#define DO(operation, value) operation(value)

proctype Writer(byte me) {
    byte context, self, heir, tries, b, s, k, evictions;
    short seen, old;
    bool got, mortal;

    atomic {
        mortal = true; context = me; self = OWNER(context, context_incarnation[context]); evictions = EVICTIONS;
        ghost_started[me] = true
    }
    if
    :: me == 1 -> DO(FIRST, 2)
#if WRITERS > 1
    :: me == 2 -> DO(SECOND, 3)
#endif
    fi;
died:
    atomic {
        context = 0; self = 0; heir = 0; tries = 0; b = 0; s = 0; k = 0; evictions = 0; seen = 0; old = 0; got = 0; mortal = 0;
        ghost_over[me] = true
    }
}

#define HELD(b)     (STATE(meta[b]) != FREE && !(STATE(meta[b]) == LIVE && NAMES(b) == 1))
#define NAMES(b)    ((slot[0] == (b) + 1) + (KEYS > 1 && slot[KEYS - 1] == (b) + 1))
#define INTENT(c)   (intent_bucket[c] || intent_other[c] || intent_new[c] || intent_old[c] || intent_victim[c])
#define STILL_LEFT(c) (context_client[c] != 0 && !client_alive[context_client[c]] && !ghost_given_up[c])

/* When nobody can act any more. */
proctype Judge() {
    byte i;
    bool frozen;
    timeout;
    d_step {
        i = 0;
        do
        :: i < PROCESSES -> frozen = frozen || ghost_frozen[i]; i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= WRITERS + READERS -> CHECK(p3_all_have_ended, ghost_over[i]); i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= CONTEXTS ->
            CHECK(p3_all_have_ended, ADOPTERS == 0 || !STILL_LEFT(i));
            CHECK(p4_intents_are_empty, frozen || ADOPTERS == 0 || !INTENT(i));
            i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < BLOCKS -> CHECK(p4_nothing_leaks, frozen || ADOPTERS == 0 || !HELD(i)); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < KEYS ->
            CHECK(p1_stored_is_found, frozen ||
                  (slot[i] == 0 -> ghost_current[i] == 0 : value_low[slot[i] - 1] == ghost_current[i]));
            CHECK(p4_one_holder, frozen || ADOPTERS == 0 || lock[i] == NOBODY);
            i++
        :: else -> break
        od
    }
}

/* Liveness, for the configurations that have LTL. Who is dead or frozen is over. */
#define DEAD_HOLDS (lock[0] != NOBODY && IS_DEAD(lock[0]))

#ifdef LTL
ltl p3_every_operation_ends { [] ((ghost_started[1] -> <> ghost_over[1]) && (ghost_started[WRITERS] -> <> ghost_over[WRITERS])) }
ltl p3_dead_lock_is_taken { [] ((DEAD_HOLDS && ghost_waits[WRITERS]) -> <> (!DEAD_HOLDS || ghost_over[WRITERS])) }
#if ADOPTERS
ltl p3_the_dead_are_recovered { [] (STILL_LEFT(1) -> <> !STILL_LEFT(1)) }
#endif
#if READERS
ltl p5_readers_wait_for_nobody { [] (ghost_started[READER] -> <> ghost_over[READER]) }
#endif
#endif

init {
    byte i;
    d_step {
        i = 1;
        do
        :: i < PROCESSES -> client_alive[i] = true; i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= CONTEXTS -> context_client[i] = i; i++
        :: else -> break
        od;
        meta[0] = META_LIVE(1); block_key[0] = 1; value_low[0] = 1; value_high[0] = 1;
        slot[0] = 1; ghost_current[0] = 1;
        i = 0
    }
    atomic {
        run Writer(1);
#if WRITERS > 1
        run Writer(2);
#endif
#if READERS
        run Reader(READER, 0);
#endif
#if ADOPTERS > 1
        run Adopter(ADOPTER, true);
#endif
#if ADOPTERS
        run Adopter(ADOPTER + ADOPTERS - 1, false);
#endif
        run Judge()
    }
}
