/*
 * What a step is, in all models.
 *
 * A step is one access to one shared word, with what follows from it for the process alone. Between any two steps the
 * others may act, and a mortal process may die or stop for ever. What the dead wrote stays; that they are dead is for the
 * others to find out. Everything named `ghost_` is seen by the properties only, never by the protocol.
 *
 * Who includes this says PROCESSES, DEATHS and FREEZES; a process has the locals `me` and `mortal` and the label `died`.
 */

bool client_alive[PROCESSES + 1];       /* client.rs, Client::is_alive: the locked byte of the file */
byte deaths = DEATHS;           /* how many processes may still die */
byte freezes = FREEZES;         /* how many may still stop for ever */
bool ghost_frozen[PROCESSES + 1];
bool ghost_over[PROCESSES + 1];  /* ended with a result or with BUSY */

/* One step of a process; instead of it the process may die, or stop for ever. */
#define DIES    :: atomic { mortal && deaths > 0 -> deaths--; client_alive[me] = false; goto died }
#define FREEZES_NOW
#if FREEZES
#undef FREEZES_NOW
#define FREEZES_NOW :: atomic { mortal && freezes > 0 -> freezes--; ghost_frozen[me] = true; goto died }
#endif
#define STEP(...) if :: atomic { __VA_ARGS__ } DIES FREEZES_NOW fi

/* A property is a flag, so that its name stands in the checker's message when it is violated. */
#define CHECK(property, condition) property = ((condition) -> true : false); assert(property)

/* All processes live at first. */
inline everybody_lives() {
    i = 1;
    do
    :: i <= PROCESSES -> client_alive[i] = true; i++
    :: else -> break
    od;
    i = 0
}
