/*
 * claim.rs, cache/store.rs, cache/remove.rs, evict.rs, cache/fast.rs: the operations that change something.
 *
 * They use these locals of their process: me, self, context, mortal, got, heir, tries, b (the new block), seen (its meta
 * word), old (the replaced one's meta word), s (a slot word), k (the victim's key), evictions.
 */

#ifdef M_NO_VERSION_BUMP
#define BUMP 0
#else
#define BUMP 1
#endif

/* Op::claim: a free block, else one that a live item must leave. Any block may be the next: hints are no truth.
 * Sets `got`; not if there is no memory. */
inline claim() {
    got = false;
    do
    :: got -> break
    :: else ->
        /* block::load; blocks in other states are passed by. */
        STEP(if
             :: STATE(meta[0]) == FREE -> b = 0; seen = meta[0]
             :: STATE(meta[1]) == FREE -> b = 1; seen = meta[1]
#if BLOCKS > 2
             :: STATE(meta[2]) == FREE -> b = 2; seen = meta[2]
#endif
#if BLOCKS > 3
             :: STATE(meta[3]) == FREE -> b = 3; seen = meta[3]
#endif
#if EVICTIONS
             :: evictions > 0 && STATE(meta[0]) == LIVE -> b = 0; seen = meta[0]; evictions--
             :: evictions > 0 && STATE(meta[1]) == LIVE -> b = 1; seen = meta[1]; evictions--
#endif
             :: else -> seen = -1
             fi);
        if
        :: seen == -1 -> seen = 0; break
#if EVICTIONS
        :: seen != -1 && STATE(seen) == LIVE -> take_live()
#endif
        :: seen != -1 && STATE(seen) == FREE -> try_claim()
        fi
    od
}

/* Op::try_claim_protected, block::claim. */
inline try_claim() {
#ifndef M_INTENT_AFTER_CLAIM
    STEP(intent_new[context] = LIFE(b, VERSION(seen) + 1));
#endif
    STEP(if
         :: meta[b] == seen -> meta[b] = META_CLAIMED(self, VERSION(seen) + BUMP); seen = meta[b]; got = true
         :: else -> seen = 0
         fi);
#ifdef M_INTENT_AFTER_CLAIM
    if
    :: got -> STEP(intent_new[context] = LIFE(b, VERSION(seen)))
    :: else
    fi
#else
    if
    :: got
    :: else -> STEP(intent_new[context] = 0)
    fi
#endif
}

/* Op::take_live, evict, evict_locked. */
inline take_live() {
    STEP(k = block_key[b] - 1);
    STEP(intent_victim[context] = LIFE(b, VERSION(seen)));
    try_lock_key(k);
    if
    :: !got
    :: got ->
        got = false;
        /* Is it still the one that was looked at? */
        STEP(if
             :: meta[b] == seen && block_key[b] == k + 1 -> got = true
             :: else
             fi);
        if
        :: got ->
            /* Bucket::place_of, and the commit: only the lock's holder changes slot words. */
            STEP(CHECK(p4_one_holder, lock[k] == self);
                 if
                 :: slot[k] == b + 1 -> slot[k] = 0; COMMITTED(k, 0)
                 :: else
                 fi);
            /* block::seize */
            STEP(if
                 :: meta[b] == seen ->
                    meta[b] = META_CLAIMED(self, VERSION(seen) + 1); seen = meta[b];
                    CHECK(p4_named_is_live, NAMED_IS_LIVE(k))
                 :: else -> got = false
                 fi)
        :: else
        fi;
        unlock(k);
        STEP(intent_bucket[context] = 0)
    fi;
    if
    :: got -> STEP(intent_new[context] = LIFE(b, VERSION(seen)))
    :: else -> seen = 0
    fi;
    STEP(intent_victim[context] = 0);
    k = 0
}

/* block::release of the block `which` in the life `life_meta`. */
inline release(which, life_meta) {
    STEP(if
         :: meta[which] == life_meta ->
            meta[which] = META_FREE(VERSION(life_meta));
            CHECK(p4_named_is_live, NAMED_IS_LIVE(0) && NAMED_IS_LIVE(KEYS - 1))
         :: else
         fi)
}

/* Op::search and Op::existing under the lock. */
inline search(key) {
    STEP(s = slot[key];
         CHECK(p1_stored_is_found,
               (s == 0 -> ghost_current[key] == 0 : value_low[s - 1] == ghost_current[key] && value_high[s - 1] == ghost_current[key])));
    if
    :: s != 0 ->
        STEP(CHECK(p1_stored_is_found, block_key[s - 1] == key + 1));
        STEP(old = meta[s - 1])
    :: else
    fi
}

/* set. `value` is a number of its own, so that it can be told from all others. */
inline set(key, value) {
    claim();
    if
    :: got ->
        /* Op::build and fill: writes to a block that is mine. */
        STEP(CHECK(p4_one_owner, meta[b] == seen); block_key[b] = key + 1);
        STEP(CHECK(p4_one_owner, meta[b] == seen); value_low[b] = value);
        STEP(CHECK(p4_one_owner, meta[b] == seen); value_high[b] = value);
        lock_key(key);
        if
        :: got ->
            search(key);
            if
            :: s != 0 -> STEP(intent_old[context] = LIFE(s - 1, VERSION(old)))
            :: else
            fi;
#ifdef M_OLD_FREED_BEFORE_COMMIT
            if
            :: s != 0 -> release(s - 1, old)
            :: else
            fi;
#endif
            /* block::publish: a plain store. */
            STEP(CHECK(p4_one_owner, meta[b] == seen); meta[b] = META_LIVE(VERSION(seen)));
#ifdef M_UNLOCK_BEFORE_COMMIT
            unlock(key);
#endif
            /* The commit. */
            STEP(
#ifndef M_UNLOCK_BEFORE_COMMIT
                 CHECK(p4_one_holder, lock[key] == self);
#endif
                 CHECK(p4_one_owner, meta[b] == META_LIVE(VERSION(seen)));
                 slot[key] = b + 1; COMMITTED(key, value));
            if
            :: s != 0 -> release(s - 1, old)
            :: else
            fi;
#ifndef M_UNLOCK_BEFORE_COMMIT
            unlock(key);
#endif
            /* Op::done */
            STEP(intent_new[context] = 0);
            STEP(intent_old[context] = 0);
            STEP(intent_bucket[context] = 0)
        :: else ->
            /* BUSY: Op::discard. */
            STEP(CHECK(p1_busy_changed_nothing, ghost_current[key] != value));
            release(b, seen);
            STEP(intent_new[context] = 0)
        fi
    :: else
    fi
}

/* delete. */
inline delete(key) {
    lock_key(key);
    if
    :: got ->
        search(key);
        if
        :: s != 0 ->
            STEP(intent_old[context] = LIFE(s - 1, VERSION(old)));
            STEP(CHECK(p4_one_holder, lock[key] == self); slot[key] = 0; COMMITTED(key, 0));
            release(s - 1, old)
        :: else
        fi;
        unlock(key);
        STEP(intent_old[context] = 0);
        STEP(intent_bucket[context] = 0)
    :: else
    fi
}
