/*
 * cache/read.rs (find, probe) and cache/fast.rs (get_fast), which checks the same: a get without a lock.
 *
 * Hazards are in `hazard.pml`, growth in `split.pml`, chains in `chain.pml`, expiry in `life.pml`.
 */

/* Whether the reader may return this value; 0 is none. */
#define MAY_RETURN(key, value) (ghost_readable[key] & (1 << (value)))

/* A new try; its locals are forgotten. */
#define AGAIN \
    CHECK(p5_retry_means_progress, ghost_commits[key] != commits); \
    s = 0; seen = 0; low = 0; high = 0; same = false

proctype Reader(byte me; byte key) {
    byte s;             /* the slot word */
    short seen;         /* the meta word */
    byte low, high;     /* the value's halves */
    byte commits;       /* ghost */
    bool ended, same;

    atomic { ghost_readable[key] = 1 << ghost_current[key]; commits = ghost_commits[key]; ghost_started[me] = true }
    do
    :: ended -> break
    :: else ->
#ifdef M_READER_WAITS
        lock[key] == NOBODY;
#endif
        /* index::lookup: the slot word; probe: once more, after the hazard was set. */
        atomic { commits = ghost_commits[key]; s = slot[key] }
        if
        :: s == 0 -> atomic { CHECK(p1_read_was_current, MAY_RETURN(key, 0)); ended = true }
        :: else ->
            same = true;
#ifndef M_NO_SLOT_CHECK
            same = (slot[key] == s);
#endif
            if
            :: !same -> atomic { AGAIN }
            :: else ->
                seen = meta[s - 1];
                if
                :: STATE(seen) != LIVE ->
                    /* Still named and still the same: damaged, which never happens here. */
                    same = (slot[key] == s);
                    atomic { same = same && meta[s - 1] == seen; assert(!same); AGAIN }
                :: else ->
                    same = (block_key[s - 1] == key + 1);
                    if
                    :: !same ->
                        /* Another's key: a miss if nothing changed. A bucket has one key here, so something did. */
                        same = (meta[s - 1] == seen);
                        atomic { same = same && slot[key] == s; assert(!same); AGAIN }
                    :: else ->
                        low = value_low[s - 1];
                        high = value_high[s - 1];
                        same = true;
#ifndef M_NO_META_CHECK
                        same = (meta[s - 1] == seen);
#endif
#ifndef M_NO_SLOT_CHECK
                        same = (same && slot[key] == s);
#endif
                        if
                        :: same -> atomic { CHECK(p1_read_was_current, low == high && MAY_RETURN(key, low)); ended = true }
                        :: else -> atomic { AGAIN }
                        fi
                    fi
                fi
            fi
        fi
    od;
    atomic { ghost_over[me] = true; s = 0; seen = 0; low = 0; high = 0; commits = 0; same = 0; ghost_readable[key] = 0 }
}
