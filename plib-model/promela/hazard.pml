/*
 * Hazards under the processor's store buffers: nobody touches a superblock that a mover has cut anew.
 *
 * A reader's hazard is a plain store, which x86 may hold back in a buffer past the reads that follow; the mover's
 * `membarrier` empties every buffer. One entry a process is enough: a second store to the same word lets the first one out.
 * All other stores that matter here are followed by a locked instruction of their process, which empties its buffer.
 *
 * | here | in the code |
 * | --- | --- |
 * | protect, unprotect | hazard.rs: Hazards::announce, clear |
 * | Reader             | cache/read.rs: probe; cache/fast.rs: get_fast; the mark: heap/block.rs |
 * | Claimer            | claim.rs: Op::try_claim |
 * | Mover              | evict.rs: drain, drain_block, evict_locked, readers_gone, undo_drain; claim.rs: convert |
 * | Adopter            | recover.rs: resolve_block, resolve_superblock |
 *
 * Macros: DEATHS (the mover's), FENCES: there is no membarrier, and each reader fences for himself.
 */

#define READER    1
#define CLAIMER   2
#define MOVER     3
#define PROCESSES 3
#define FREEZES   0
#include "step.pml"

bool p4_cut_is_untouched = true;    /* what is read or written in a superblock is there as it was announced */
bool p4_claimed_is_kept = true;     /* a block that an operation holds is not cut away */
bool p4_nothing_leaks = true;       /* a superblock is given back by whoever moved it, or by a survivor */

/* Superblock states. */
#define CLASS      1
#define DRAINING   2
#define CONVERTING 3
#define OTHER      4

/* Meta words: the owner, or one of these; versions beside them. */
#define FREE 0
#define LIVE 9

byte super = CLASS;
bool cut;                   /* the bytes are something else now */
byte slot = 1;              /* names block 0 */
byte state[2], version[2];  /* block 0 is live, block 1 free */
byte hazard[3];             /* as others see it; of READER and CLAIMER */
#define NONE 2
byte buffer[3] = NONE;      /* a store on its way */
bool intent;                /* the mover's: its fields superblock and victim */

/* Any access to the superblock's bytes. */
#define TOUCH CHECK(p4_cut_is_untouched, !cut)
/* What a locked instruction does first. */
#define DRAIN(p) if :: buffer[p] != NONE -> hazard[p] = buffer[p]; buffer[p] = NONE :: else fi

inline protect() {
#ifdef M_NO_HAZARD
    skip;
#else
    atomic { DRAIN(me); buffer[me] = 1 }
#endif
#ifdef FENCES
#ifndef M_NO_READER_FENCE
    atomic { DRAIN(me) }
#endif
#endif
}

inline unprotect() {
    atomic { DRAIN(me); buffer[me] = 0 }
}

proctype Reader(byte me) {
    byte s, seen;
    bool same;

    s = slot;
    if
    :: s == 0
    :: else ->
        protect();
        same = true;
#ifndef M_NO_RELOAD
        same = (slot == s);
#endif
        if
        :: !same
        :: else ->
            atomic { seen = version[0]; same = (state[0] == LIVE); TOUCH }
            atomic { TOUCH }                                /* copies the value */
            atomic { same = same && state[0] == LIVE && version[0] == seen; TOUCH }
            same = same && slot == s;
#ifdef M_MARKED_AFTER_UNPROTECT
            unprotect();
#endif
            if
            :: same -> atomic { DRAIN(me); TOUCH }          /* block::mark writes, if the word is still the same */
            :: else
            fi
        fi;
        unprotect()
    fi;
    ghost_over[me] = true
}

proctype Claimer(byte me) {
    byte seen;
    bool serves, got;

    protect();
    serves = true;
#ifndef M_NO_SERVES_CHECK
    serves = (super == CLASS);
#endif
    if
    :: serves ->
        atomic { seen = version[1]; serves = (state[1] == FREE); TOUCH }
        if
        :: serves ->
            atomic {
                DRAIN(me); TOUCH;
                if
                :: state[1] == FREE && version[1] == seen -> state[1] = me; version[1] = version[1] + 1; got = true
                :: else
                fi
            }
        :: else
        fi
    :: else
    fi;
    unprotect();
    if
    :: got ->
        /* What is claimed needs no hazard. */
        atomic { CHECK(p4_claimed_is_kept, state[1] == me); TOUCH }
        atomic { TOUCH; state[1] = FREE }
    :: else
    fi;
    ghost_over[me] = true
}

/* Op::is_read, both hazards one after the other. */
inline scan() {
    STEP(read = (hazard[READER] == 1));
    STEP(read = read || hazard[CLAIMER] == 1)
}

proctype Mover(byte me) {
    bool mortal = true, read, failed;

    STEP(intent = true);
    STEP(if :: super == CLASS -> super = DRAINING fi);
#ifdef M_SCAN_BEFORE_UNLINK
    STEP(DRAIN(READER));
    STEP(DRAIN(CLAIMER));
    scan();
#endif
    /* drain_block: block 0 is evicted. Its bucket's lock is nobody else's here. */
    STEP(slot = 0);
    STEP(state[0] = me; version[0] = version[0] + 1);
    /* block 1 is claimed; if somebody holds it, patience ends. */
    STEP(if
         :: state[1] == FREE -> state[1] = me; version[1] = version[1] + 1
         :: else -> failed = true
         fi);
    if
    :: failed
    :: else ->
#ifndef M_SCAN_BEFORE_UNLINK
#ifndef FENCES
#ifndef M_NO_BARRIER
        /* sys::barrier: every processor in its turn. */
        STEP(DRAIN(READER));
        STEP(DRAIN(CLAIMER));
#endif
#endif
        scan();
#endif
        failed = read
    fi;
    if
    :: failed ->
        /* undo_drain */
        STEP(if :: state[0] == me -> state[0] = FREE :: else fi);
        STEP(if :: state[1] == me -> state[1] = FREE :: else fi);
        STEP(super = CLASS)
    :: else ->
        STEP(super = CONVERTING);
        STEP(cut = true);
        STEP(super = OTHER)
    fi;
    STEP(intent = false);
    ghost_over[me] = true;
died:
    skip
}

proctype Adopter() {
    !client_alive[MOVER] && intent ->
    /* resolve_block(victim): live and unnamed, or claimed by the dead. */
    atomic { if :: super == DRAINING && slot == 0 && state[0] == LIVE -> state[0] = MOVER; version[0] = version[0] + 1 :: else fi }
    atomic { if :: super == DRAINING && state[0] == MOVER -> state[0] = FREE :: else fi }
    if
    :: super == DRAINING ->
        /* release_drained */
        atomic { if :: state[0] == MOVER -> state[0] = FREE :: else fi }
        atomic { if :: state[1] == MOVER -> state[1] = FREE :: else fi }
        super = CLASS
    :: super == CONVERTING ->
        /* To the pool, from where anybody takes it. */
        super = OTHER;
        cut = true
    :: else
    fi;
    intent = false
}

/* Stores come out of the buffers by themselves, some time. */
active proctype Buffers() {
end:
    do
    :: atomic { buffer[READER] != NONE -> DRAIN(READER) }
    :: atomic { buffer[CLAIMER] != NONE -> DRAIN(CLAIMER) }
    od
}

proctype Judge() {
    timeout;
    CHECK(p4_nothing_leaks, !intent && (super == OTHER || super == CLASS && state[0] != MOVER && state[1] != MOVER)
          && ghost_over[READER] && ghost_over[CLAIMER])
}

init {
    byte i;
    atomic {
        everybody_lives();
        state[0] = LIVE;
        run Reader(READER);
        run Claimer(CLAIMER);
        run Mover(MOVER);
#if DEATHS
        run Adopter();
#endif
        run Judge()
    }
}
