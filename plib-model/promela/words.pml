/*
 * The shared words of one heap as `bucket.pml` sees them, and its properties.
 *
 * | here | in the code |
 * | --- | --- |
 * | meta, META_*       | heap/block.rs: the meta word (state, owner, version; no frequency) |
 * | slot               | index/line.rs: the slot word; a bucket has one, and one key hashes to each bucket |
 * | lock               | index/line.rs: the control word's owner |
 * | context_*, OWNER   | client.rs: ContextState, Owner |
 * | client_alive       | client.rs: Client::is_alive, the locked byte of the file |
 * | intent_*           | client.rs: Intent |
 */

#define NOBODY 0

/* Meta words: state 2 bits, owner 5, version above. */
#define FREE    0
#define CLAIMED 1
#define LIVE    2
#define META(state, owner, version) ((state) | (owner) << 2 | (version) << 7)
#define STATE(m)   ((m) & 3)
#define HOLDER(m)  ((m) >> 2 & 31)
#define VERSION(m) ((m) >> 7)
#define META_FREE(version)          META(FREE, NOBODY, version)
#define META_CLAIMED(owner, version) META(CLAIMED, owner, version)
#define META_LIVE(version)          META(LIVE, NOBODY, version)

/* Owners: incarnation 2 bits, context above. */
#define OWNER(context, incarnation) ((context) << 2 | (incarnation))
#define CONTEXT(owner)     ((owner) >> 2)
#define INCARNATION(owner) ((owner) & 3)

/* A block in one life, as intents name it: 1 + block 3 bits, version above. */
#define LIFE(block, version) (1 + (block) | (version) << 3)
#define BLOCK(life)       (((life) & 7) - 1)
#define LIFE_VERSION(life) ((life) >> 3)

short meta[BLOCKS];
byte block_key[BLOCKS];         /* stands for header and key: 1 + the key */
byte value_low[BLOCKS];         /* the two halves of a value, so that a torn one can be told */
byte value_high[BLOCKS];

byte slot[KEYS];                /* 1 + the block; 0 is empty */
byte lock[KEYS];                /* the owner; 0 is nobody */

byte context_incarnation[CONTEXTS + 1];
byte context_client[CONTEXTS + 1];      /* the process that holds it; 0 if it is not busy */

byte intent_bucket[CONTEXTS + 1];       /* 1 + the bucket */
byte intent_other[CONTEXTS + 1];
short intent_new[CONTEXTS + 1];         /* lives */
short intent_old[CONTEXTS + 1];
short intent_victim[CONTEXTS + 1];

/* client.rs, owner_is_dead. What is dead stays dead, so it does not matter that the code reads the words one by one. */
#define IS_DEAD(owner) \
    (context_incarnation[CONTEXT(owner)] != INCARNATION(owner) || !client_alive[context_client[CONTEXT(owner)]])

/*
 * The properties. Each is a flag, so that its name stands in the checker's message when it is violated.
 */
bool p1_stored_is_found = true;         /* a writer finds under the lock what was committed last */
bool p1_read_was_current = true;        /* a reader returns what was current at some moment of his read */
bool p1_busy_changed_nothing = true;    /* an operation that answers BUSY has committed nothing */
bool p3_all_have_ended = true;          /* when nobody can act any more, everybody alive has ended */
bool p4_one_holder = true;              /* a bucket is changed and unlocked by the holder of its lock */
bool p4_one_owner = true;               /* a block is written and published by its owner alone */
bool p4_named_is_live = true;           /* what a slot word names is Live */
bool p4_nothing_leaks = true;           /* after recovery each block is free or named by one slot */
bool p4_intents_are_empty = true;       /* after recovery no intent names anything */
bool p5_retry_means_progress = true;    /* a reader starts again only because somebody else committed */

/* What a key's value is, as the commits say; 0 is none. */
byte ghost_current[KEYS];
/* What a reader of a key may return: a bit for each value that was current since he began, bit 0 for none. */
byte ghost_readable[KEYS];
/* Counts commits of a key, for p5. */
byte ghost_commits[KEYS];

#define COMMITTED(key, value) \
    ghost_current[key] = value; \
    ghost_readable[key] = ghost_readable[key] | (1 << value); \
    ghost_commits[key]++

#define NAMED_IS_LIVE(key) (slot[key] == 0 || STATE(meta[slot[key] - 1]) == LIVE)
