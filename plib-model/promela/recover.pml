/*
 * recover.rs and client.rs (adopt, recover_the_dead, abandon, release_context): what a survivor does for the dead.
 *
 * Locals of its process: me, context (the adopted one), self, mortal, got, heir, tries, life, b, seen, k, s, named, stuck.
 */

/* Op::unlock_left. */
inline unlock_left(word) {
    STEP(s = word);
    if
    :: s != 0 ->
        STEP(named = (CONTEXT(lock[s - 1]) == context));
        if
        :: named -> lock_bucket(s - 1, true); if :: got -> unlock(s - 1) :: else -> stuck = true fi
        :: else
        fi
    :: else
    fi;
    s = 0; named = false; got = false
}

/* Op::resolve_block; `clear` only when nothing is left to do. */
inline resolve_block(word) {
    if
    :: stuck
    :: else ->
        STEP(life = word);
        if
        :: life != 0 ->
            b = BLOCK(life);
#ifdef M_INTENT_CLEARED_FIRST
            STEP(word = 0);
#endif
            STEP(seen = meta[b]);
            if
            :: STATE(seen) == CLAIMED && CONTEXT(HOLDER(seen)) == context -> release(b, seen)
            :: STATE(seen) == LIVE && VERSION(seen) == LIFE_VERSION(life) -> bury_unnamed()
            :: else
            fi;
            if
            :: stuck
            :: else -> STEP(word = 0)
            fi
        :: else
        fi;
        life = 0; b = 0; seen = 0
    fi
}

/* Op::bury_unnamed. */
inline bury_unnamed() {
#ifdef M_META_READ_AGAIN
    STEP(seen = meta[b]);
#endif
    STEP(k = block_key[b] - 1);
#ifdef M_FREED_WITHOUT_A_LOOK
    named = false;
#else
    /* Op::lock_key_recovering */
    STEP(intent_other[context] = k + 1);
    lock_bucket(k, true);
    if
    :: !got -> stuck = true
    :: else -> STEP(named = (slot[k] == b + 1))
    fi;
#endif
    if
    :: stuck
    :: else ->
        got = false;
        if
        :: named
        :: else ->
            /* block::seize */
            STEP(if
                 :: meta[b] == seen ->
                    meta[b] = META_CLAIMED(self, VERSION(seen) + 1); seen = meta[b]; got = true;
                    CHECK(p4_named_is_live, NAMED_IS_LIVE(0) && NAMED_IS_LIVE(KEYS - 1))
                 :: else
                 fi)
        fi;
#ifndef M_FREED_WITHOUT_A_LOOK
        unlock(k);
#endif
        if
        :: got -> release(b, seen)
        :: else
        fi
    fi;
    got = false; named = false; k = 0
}

/* Whether a context is busy and its owner dead; one that was given up because of a frozen holder is left for later. */
#define IS_LEFT(c) (context_client[c] != 0 && !client_alive[context_client[c]] && !ghost_given_up[c])

proctype Adopter(byte me; bool mortal) {
    byte context, self, heir, tries, b, k, s;
    short life, seen;
    bool got, named, stuck;

end_idle:
    do
    :: atomic {
        /* Client::adopt: looks, */
        if
        :: IS_LEFT(1) -> context = 1
#if CONTEXTS > 1
        :: IS_LEFT(2) -> context = 2
#endif
        fi;
        self = OWNER(context, context_incarnation[context]);
        k = context_client[context]
       }
       /* and makes it its own: Client::enter. */
       STEP(if
            :: self == OWNER(context, context_incarnation[context]) && k == context_client[context] ->
#ifndef M_NO_INCARNATION_BUMP
                context_incarnation[context] = (context_incarnation[context] + 1) & 3;
#endif
                context_client[context] = me;
                self = OWNER(context, context_incarnation[context])
            :: else -> self = NOBODY
            fi; k = 0);
       if
       :: self == NOBODY
       :: else ->
            unlock_left(intent_bucket[context]);
            if
            :: stuck
            :: else -> unlock_left(intent_other[context])
            fi;
            resolve_block(intent_victim[context]);
            resolve_block(intent_new[context]);
            resolve_block(intent_old[context]);
            if
            :: stuck ->
                /* Client::abandon: somebody frozen holds what is needed. */
                STEP(context_client[context] = NO_CLIENT; ghost_given_up[context] = true);
                stuck = false
            :: else ->
                STEP(intent_other[context] = 0);
                STEP(intent_bucket[context] = 0);
                /* Client::release_context */
                STEP(context_client[context] = 0; context_incarnation[context] = (context_incarnation[context] + 1) & 3)
            fi
       fi;
       context = 0; self = 0
    od;
died:
    atomic {
        context = 0; self = 0; heir = 0; tries = 0; b = 0; k = 0; s = 0; life = 0; seen = 0; got = 0; named = 0; stuck = 0;
        ghost_over[me] = true
    }
}
