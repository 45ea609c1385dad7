// Signals at any moment of a thread's first operation, and of opening and closing: a handler that jumps out, ends the thread or
// uses the cache leaves nothing locked. Other threads, and this one, can open, close and begin.
#include "interrupt.h"

static const char *path;

static plib_status_t first_operation(void) { return set(cache, "same", "new"); }
static plib_status_t open_and_close(void) {
  plib_t *again = NULL;
  plib_status_t status = plib_open(path, NULL, &again);
  if (status == PLIB_OK) {
    status = set(again, "same", "new");
    plib_close(again);
  }
  return status;
}

typedef enum { JUMPS, EXITS, USES, WAYS } way_t;
static const char *const way_names[] = {"jumps out", "ends the thread", "uses the cache"};
static way_t way;
static _Thread_local sigjmp_buf back;
static atomic_long handled, refused;

// Signals from another thread count only while the call is under way.
static _Thread_local volatile int inside;
static atomic_int begun;

static void on_signal(int number) {
  (void)number;
  if (!inside) return;
  handled++;
  if (way == JUMPS) siglongjmp(back, 1);
  if (way == EXITS) pthread_exit(NULL);
  double start = now_ms();
  plib_status_t status = set(cache, "handler", "h");
  CHECK((status == PLIB_OK || status == PLIB_E_BUSY) && now_ms() - start < 2000);
  refused += status == PLIB_E_BUSY;
}

typedef struct {
  plib_status_t (*call)(void);
  long n, length;
} visit_t;

// What n may be besides a number of instructions.
enum { NONE = 0, FROM_OUTSIDE = -1, COUNT = 1 << 30 };

static void *visit(void *of) {
  visit_t *v = of;
  begun = 1;
  if (sigsetjmp(back, 1) == 0) {
    inside = 1;
    if (v->n > 0)
      interrupted_at(v->n, v->call);
    else
      v->call();
  }
  inside = 0;
  v->length = stepped;
  // The thread goes on as any other.
  if (v->n != NONE) IS(PLIB_OK, v->call());
  sigset_t mask;
  CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 && !sigismember(&mask, SIGALRM) && !sigismember(&mask, SIGTERM));
  return NULL;
}

static void on_thread(visit_t *v, long delay) {
  pthread_t thread;
  begun = 0;
  CHECK(pthread_create(&thread, NULL, visit, v) == 0);
  if (v->n == FROM_OUTSIDE) {
    while (!begun) sched_yield();
    for (volatile long i = delay; i > 0; i--) continue;
    pthread_kill(thread, SIGUSR1);
  }
  CHECK(pthread_join(thread, NULL) == 0);
}

static void nobody_is_locked_out(plib_status_t (*call)(void)) {
  visit_t next = {.call = call};
  on_thread(&next, 0);
  IS(PLIB_OK, set(cache, "same", "main"));
  IS(PLIB_OK, peer_sets("same"));
}

// A thread's first operation, instruction by instruction.
static void begin_at_every_moment(long points) {
  visit_t whole = {.call = first_operation, .n = COUNT};
  on_thread(&whole, 0);
  long before = handled, stride = whole.length > points ? whole.length / points : 1;
  for (long n = 1; n < whole.length; n += stride) {
    visit_t v = {.call = first_operation, .n = n};
    on_thread(&v, 0);
    nobody_is_locked_out(first_operation);
  }
  no_findings();
  fprintf(stderr, "    first operation, handler %s: %ld instructions, %ld handlers\n", way_names[way], whole.length, handled - before);
  CHECK(handled - before > points / 2);
}

// Opening and closing, which is long, at any time.
static void open_at_any_moment(long times) {
  long before = handled, visits = 0;
  // On a loaded machine many a signal comes when the call is over.
  for (long i = 0; handled - before < times / 4 && i < 20 * times; i++, visits++) {
    visit_t v = {.call = open_and_close, .n = FROM_OUTSIDE};
    // Sooner and later: how long the call takes depends on the machine.
    on_thread(&v, (i * 7919 % 200000) >> i % 8);
    if (i % 8 == 0) nobody_is_locked_out(open_and_close);
  }
  nobody_is_locked_out(open_and_close);
  no_findings();
  fprintf(stderr, "    open and close, handler %s: %ld times, %ld handlers\n", way_names[way], visits, handled - before);
  CHECK(handled - before >= times / 10);
}

int main(int argc, char **argv) {
  (void)argc;
  path = argv[1];
  const char *exhaustive = getenv("PLIB_EXHAUSTIVE");
  int all = exhaustive && strcmp(exhaustive, "1") == 0;
  // A handle that was jumped out of before the caller had it stays open: there must be room for them.
  plib_create_options_t options = {.size = sizeof options, .heap_size = 32 << 20, .contexts = all ? 512 : 96};
  IS(PLIB_OK, plib_create(path, &options, &cache));
  start_peer();
  when_interrupted(on_signal, 0);
  alarm(all ? 3000 : 600); // a lock that is never released would hold this up for ever
  for (way = 0; way < WAYS; way++) {
    begin_at_every_moment(all ? 3000 : 24);
    open_at_any_moment(all ? 250 : 40);
  }
  fprintf(stderr, "    %ld handlers, %ld of them refused\n", (long)handled, (long)refused);
  plib_close(cache);
  return 0;
}
