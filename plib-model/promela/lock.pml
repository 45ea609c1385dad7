/*
 * cache/lock.rs and index/line.rs: bucket locks.
 *
 * A failed try changes no shared word, so a loop of them is one step that happens when something can: the lock is free, or
 * its holder is dead, or he is alive and patience is over. With PATIENCE the loop is there, for the properties that say
 * that it ends.
 */

#ifdef M_TAKE_OVER_FROM_THE_LIVING
#define MAY_TAKE(bucket) true
#else
#define MAY_TAKE(bucket) IS_DEAD(lock[bucket])
#endif

/* Alive, so there is only BUSY left, now (one step for all tries) or after PATIENCE tries. */
#if defined(M_PATIENCE_NEVER_ENDS) && !defined(PATIENCE)
#define HELD_BY_ANOTHER(bucket) false
#else
#define HELD_BY_ANOTHER(bucket) (lock[bucket] != NOBODY && !MAY_TAKE(bucket))
#endif

#ifdef LTL
bool ghost_waits[PROCESSES + 1];
#define WAITS(whether) ghost_waits[me] = whether
#else
#define WAITS(whether) skip
#endif

/* Line::try_lock, then Op::wait_for. Sets `got`. `patient`: never gives up while the holder is alive and not frozen. */
inline lock_bucket(bucket, patient) {
    atomic { got = false; WAITS(true); tries = 0 }
    do
    :: got -> break
    :: else ->
        heir = NOBODY;
        STEP(if
             :: lock[bucket] == NOBODY -> lock[bucket] = self; got = true
             :: lock[bucket] != NOBODY && MAY_TAKE(bucket) -> heir = lock[bucket]
             :: HELD_BY_ANOTHER(bucket) && (!patient || ghost_frozen[context_client[CONTEXT(lock[bucket])]])
             fi);
        if
        :: got -> break
        :: !got && heir != NOBODY ->
            take_over(bucket)
        :: !got && heir == NOBODY ->
#ifdef PATIENCE
#ifndef M_PATIENCE_NEVER_ENDS
            tries++;
#endif
            if
            :: tries > PATIENCE -> break
            :: else
            fi
#else
            break
#endif
        fi
    od;
    atomic { tries = 0; WAITS(false); heir = NOBODY }
}

/* Line::take_over: from the holder `heir` that was found dead. There is nothing to scrub in a bucket of one slot. */
inline take_over(bucket) {
#ifdef M_TAKE_OVER_BY_STORE
    STEP(lock[bucket] = self; got = true)
#else
    STEP(if
         :: lock[bucket] == heir -> lock[bucket] = self; got = true
         :: else
         fi)
#endif
}

/* Op::lock_key: the intent names the bucket first. */
inline lock_key(bucket) {
    STEP(intent_bucket[context] = bucket + 1);
    lock_bucket(bucket, false);
    if
    :: got
    :: else -> STEP(intent_bucket[context] = 0)
    fi
}

/* Op::try_lock_key: does not wait for a live holder. */
inline try_lock_key(bucket) {
    got = false;
    heir = NOBODY;
    STEP(intent_bucket[context] = bucket + 1);
    STEP(if
         :: lock[bucket] == NOBODY -> lock[bucket] = self; got = true
         :: lock[bucket] != NOBODY && MAY_TAKE(bucket) -> heir = lock[bucket]
         :: lock[bucket] != NOBODY && !MAY_TAKE(bucket)
         fi);
    if
    :: heir != NOBODY -> take_over(bucket)
    :: else
    fi;
    heir = NOBODY;
    if
    :: got
    :: else -> STEP(intent_bucket[context] = 0)
    fi
}

/* Line::unlock: a plain store. */
inline unlock(bucket) {
    STEP(CHECK(p4_one_holder, lock[bucket] == self); lock[bucket] = NOBODY)
}
