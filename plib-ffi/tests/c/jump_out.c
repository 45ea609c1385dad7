// A signal handler that jumps out of an operation, at every instruction of it: the thread's next call goes on as if
// nothing had been, another process finds the bucket free, and the key has the old value or the new one.
#include "interrupt.h"

static sigjmp_buf back;

static void jump(int number) {
  (void)number;
  siglongjmp(back, 1);
}

static long points, old_values, new_values;

// Calls it and jumps out behind its n-th instruction; false if it was over by then.
static int left_at(const operation_t *op, long n) {
  if (sigsetjmp(back, 1) == 0) interrupted_at(n, op->call);
  return was_interrupted();
}

static void jump_out_of(const operation_t *op, long n) {
  prepare(op);
  if (!left_at(op, n)) return;
  // One call of this thread on the handle, of any kind, and all is as before.
  int old = holds("same", op->old), new = holds("same", op->new);
  if (!(old || new)) fprintf(stderr, "%s, instruction %ld\n", op->name, n);
  CHECK(old || new);
  old_values += old;
  new_values += !old;
  plib_status_t own = set(cache, "same", "own"), peer = peer_sets("same");
  if (own || peer) fprintf(stderr, "%s, instruction %ld: own %d, peer's %d\n", op->name, n, own, peer);
  CHECK(own == PLIB_OK && peer == PLIB_OK);
  points++;
}

static long lengths[OPERATIONS];

// The fewest instructions that it was seen to take: how many a growth takes depends on the heap's secret and on what was before.
static long shortest(const operation_t *op) {
  long best = length_of(op);
  for (int i = 0; i < 3; i++) {
    long length = length_of(op);
    if (length < best) best = length;
  }
  return best;
}

// Any operation recovers any other that was left in its middle, from the same depth.
static void any_call_recovers(void) {
  for (int a = 0; a < OPERATIONS; a++)
    for (int b = 0; b < OPERATIONS; b++) {
      // Sooner, if this time it was over by then.
      long n = lengths[a];
      do {
        prepare(&operations[a]);
        n /= 2;
        CHECK(n > 100);
      } while (!left_at(&operations[a], n));
      operations[b].call();
      IS(PLIB_OK, peer_sets("same"));
      no_findings();
    }
}

static __attribute__((noinline)) plib_status_t from_deeper(volatile char *unused) {
  char frame[8192];
  frame[0] = *unused;
  __asm__ volatile("" ::"r"(frame) : "memory");
  return do_set();
}

// A call from deeper in the stack cannot tell the frame that is gone from one that waits: it works beside it, BUSY at worst.
static void deeper_calls_are_safe(void) {
  char byte = 0;
  for (long n = 1; n <= lengths[1]; n += 1 + lengths[1] / 60) {
    prepare(&operations[1]);
    left_at(&operations[1], n);
    double start = now_ms();
    plib_status_t status = from_deeper(&byte);
    CHECK((status == PLIB_OK || status == PLIB_E_BUSY) && now_ms() - start < 100);
    IS(PLIB_OK, do_set());
    IS(PLIB_OK, from_deeper(&byte));
    IS(PLIB_OK, peer_sets("same"));
  }
}

// Calls that fail, with words of different kinds: of numbers, and of a text elsewhere.
static plib_status_t fail_small(void) {
  char byte;
  size_t len;
  return plib_get(cache, "same", 4, &byte, 1, &len, NULL);
}
static plib_status_t fail_invalid(void) { return plib_set(cache, "same", 4, NULL, 7, 0, 0, NULL); }
static plib_status_t fail_key(void) { return plib_delete(cache, "", 0); }

static const struct { plib_status_t (*call)(void); plib_status_t status; } failing[] = {
    {fail_small, PLIB_E_TOO_SMALL}, {fail_invalid, PLIB_E_INVALID}, {fail_key, PLIB_E_KEY}};
enum { FAILING = sizeof failing / sizeof *failing };
static char words[FAILING][256];

// What is asked for after a jump out of b, when a had failed before it: a's words, b's, or those of b's status.
static void words_after_jump(int a, int b, long n) {
  const operation_t op = {.name = "failing", .call = failing[b].call};
  for (int i = 0; i < 2; i++) IS(failing[a].status, failing[a].call());
  if (!left_at(&op, n)) return;
  const char *said = plib_last_error_message();
  int sane = !strcmp(said, words[a]) || !strcmp(said, words[b]) || !strcmp(said, plib_strerror(failing[b].status)) ||
             !strcmp(said, plib_strerror(failing[a].status));
  if (!sane) fprintf(stderr, "behind instruction %ld of %d after %d: %.200s\n", n, b, a, said);
  CHECK(sane);
  // Once asked, all is as before.
  IS(failing[a].status, failing[a].call());
  CHECK(strcmp(plib_last_error_message(), words[a]) == 0);
}

static void words_stay_whole(void) {
  long jumps = 0;
  IS(PLIB_OK, set(cache, "same", "large enough"));
  for (int i = 0; i < FAILING; i++) {
    IS(failing[i].status, failing[i].call());
    snprintf(words[i], sizeof words[i], "%s", plib_last_error_message());
    CHECK(strcmp(words[i], plib_strerror(failing[i].status)) != 0);
  }
  for (int a = 0; a < FAILING; a++)
    for (int b = 0; b < FAILING; b++) {
      IS(failing[b].status, interrupted_at(0, failing[b].call));
      long length = stepped;
      for (long n = 1; a != b && n <= length; n++, jumps++) words_after_jump(a, b, n);
    }
  fprintf(stderr, "    left failing calls behind %ld instructions\n", jumps);
  CHECK(jumps > 500);
}

int main(int argc, char **argv) {
  (void)argc;
  cache = create(argv[1]);
  fill();
  start_peer();
  when_interrupted(jump, 0);
  for (int i = 0; i < OPERATIONS; i++) {
    long before = points, length = lengths[i] = shortest(&operations[i]);
    for (long n = 1; n <= length; n = next_moment(n, length)) jump_out_of(&operations[i], n);
    no_findings();
    fprintf(stderr, "    %s: %ld instructions, left behind %ld of them\n", operations[i].name, length, points - before);
    CHECK(points - before >= 20);
  }
  CHECK(old_values > 100 && new_values > 20);
  any_call_recovers();
  deeper_calls_are_safe();
  words_stay_whole();
  // Nothing was left behind: this thread's context and the peer's.
  CHECK(stat_of("contexts") <= 3);
  plib_close(cache);
  IS(PLIB_OK, plib_open(argv[1], NULL, &cache));
  no_findings();
  fprintf(stderr, "    left %ld calls: %ld old values, %ld new ones; the peer waited %.0f ms at most\n", points, old_values, new_values,
          peer_slowest_ms);
  plib_close(cache);
  return 0;
}
