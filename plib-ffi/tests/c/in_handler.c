// A signal handler that uses the cache in the middle of its thread's own operation, at every instruction of it: each call does
// its work or answers BUSY, at once, and the interrupted operation never notices. Handlers that interrupt handlers too.
#include "interrupt.h"

static long handled, busy, deepest;
static double slowest_ms;
static int depth;

static int timed(plib_status_t status, double start, const char *what) {
  double took = now_ms() - start;
  if (took > slowest_ms) slowest_ms = took;
  // BUSY after a wait for itself would take 150 ms. The machine may be loaded; no call may take as long twice.
  if (took > 120) fprintf(stderr, "%s took %.0f ms\n", what, took);
  busy += status == PLIB_E_BUSY;
  return status == PLIB_OK || status == PLIB_E_BUSY || status == PLIB_E_NOT_FOUND;
}

#define AT_ONCE(call)                                   \
  do {                                                  \
    double start_ = now_ms();                           \
    CHECK(timed((call), start_, #call));                \
  } while (0)

static int count_entry(void *context, const plib_entry_t *entry) {
  (void)entry;
  return ++*(long *)context >= 20;
}

static void use_the_cache(int number) {
  (void)number;
  if (++depth > deepest) deepest = depth;
  char buf[64];
  size_t len;
  long entries = 0;
  plib_set_request_t batch[2] = {{.key = "same", .key_len = 4, .value = "new", .value_len = 3},
                                 {.key = "another", .key_len = 7, .value = "x", .value_len = 1}};
  plib_check_t check = {.size = sizeof check};
  long before = busy;
  AT_ONCE(plib_get(cache, "filler 7", 8, buf, sizeof buf, &len, NULL));
  AT_ONCE(plib_set(cache, "handler", 7, "h", 1, 0, 0, NULL));
  AT_ONCE(plib_touch(cache, "same", 4, 1000));
  AT_ONCE(plib_set(cache, "handler", 7, large_new, LARGE, 0, 0, NULL));
  AT_ONCE(plib_mset(cache, batch, 2));
  busy += batch[0].status == PLIB_E_BUSY;
  AT_ONCE(plib_scan(cache, count_entry, &entries));
  CHECK(entries > 0);
  // Locks every bucket in turn: at most the one that was interrupted is found taken.
  double start = now_ms();
  IS(PLIB_OK, plib_check(cache, NULL, NULL, &check));
  CHECK(timed(PLIB_OK, start, "check") && check.findings <= 2 && check.severe == 0);
  busy += check.findings > 0;
  // Once more, in the middle of a call of this handler.
  if (depth == 1 && before == busy) {
    long outer = stepped, at = interrupt_at;
    interrupted_at(150, do_touch);
    stepped = outer, interrupt_at = at;
  }
  depth--;
  handled++;
}

static long slow;

static void interrupt_all(const operation_t *op) {
  long length = length_of(op), points = 0, before = busy;
  for (long n = 1; n <= length; n = next_moment(n, length)) {
    prepare(op);
    slowest_ms = 0;
    plib_status_t status = interrupted_at(n, op->call);
    slow += slowest_ms > 120;
    if (!was_interrupted()) continue;
    // What the handler did to this key came before or after, as another thread's doing would.
    CHECK(status == PLIB_OK || status == PLIB_E_NOT_FOUND || status == PLIB_E_NOT_NUMERIC);
    IS(PLIB_OK, set(cache, "same", "own"));
    IS(PLIB_OK, peer_sets("same"));
    points++;
  }
  no_findings();
  fprintf(stderr, "    %s: %ld instructions, interrupted behind %ld of them, %ld times BUSY\n", op->name, length, points, busy - before);
  CHECK(points >= 20);
  // Whatever locks a bucket is met with the bucket locked.
  if (op->call != do_get && op->call != do_mget) CHECK(busy > before);
}

int main(int argc, char **argv) {
  (void)argc;
  cache = create_sized(argv[1], 32 << 20);
  fill();
  start_peer();
  when_interrupted(use_the_cache, SA_NODEFER);
  for (int i = 0; i < OPERATIONS; i++) interrupt_all(&operations[i]);
  CHECK(deepest >= 2);
  // A loaded machine may stop us for so long now and then; a wait of 150 ms would be seen at every locked bucket.
  CHECK(slow * 20 < busy);
  CHECK(stat_of("contexts") <= 3);
  fprintf(stderr, "    %ld handlers, %ld times BUSY, %ld calls interrupted longer than 120 ms\n", handled, busy, slow);
  plib_close(cache);
  return 0;
}
