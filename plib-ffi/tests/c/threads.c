// Threads: many at a time, more than there are op contexts, and many one after the other.
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 40, ROUNDS = 2000 };

static plib_t *cache;
static atomic_long busy;

// BUSY is an honest answer where forty threads fight for two processors; it must be rare, and it changes nothing.
#define PATIENTLY(call)                                         \
  do {                                                          \
    plib_status_t status_;                                      \
    while ((status_ = (call)) == PLIB_E_BUSY) CHECK(++busy < 400); \
    IS(PLIB_OK, status_);                                       \
  } while (0)

static void *count(void *number) {
  char own[16];
  size_t len = (size_t)snprintf(own, sizeof own, "own %ld", (long)number);
  for (int i = 0; i < ROUNDS; i++) {
    uint64_t n;
    PATIENTLY(plib_incr(cache, "all", 3, 1, &n));
    PATIENTLY(plib_incr_init(cache, own, len, 1, 1, 0, &n));
    CHECK(n == (uint64_t)i + 1);
  }
  return NULL;
}

static void *once(void *unused) {
  (void)unused;
  IS(PLIB_OK, plib_incr(cache, "all", 3, 1, NULL));
  return NULL;
}

static pthread_key_t key;

// Runs after the library's own destructors, or before: either must work.
static void late(void *value) {
  (void)value;
  IS(PLIB_OK, plib_incr(cache, "all", 3, 1, NULL));
}

static void *with_destructor(void *unused) {
  (void)unused;
  pthread_setspecific(key, cache);
  return once(NULL);
}

static void join_all(void *(*run)(void *), int n, int at_a_time) {
  pthread_t threads[THREADS];
  for (int i = 0; i < n; i += at_a_time) {
    for (int j = 0; j < at_a_time; j++) CHECK(pthread_create(&threads[j], NULL, run, (void *)(long)j) == 0);
    for (int j = 0; j < at_a_time; j++) pthread_join(threads[j], NULL);
  }
}

int main(int argc, char **argv) {
  (void)argc;
  // 16 op contexts for 40 threads.
  plib_create_options_t options = {.size = sizeof options, .heap_size = 16 << 20, .contexts = 16};
  IS(PLIB_OK, plib_create(argv[1], &options, &cache));
  IS(PLIB_OK, set(cache, "all", "0"));
  join_all(count, THREADS, THREADS);
  uint64_t n;
  IS(PLIB_OK, plib_incr(cache, "all", 3, 0, &n));
  CHECK(n == THREADS * ROUNDS);
  // Contexts of ended threads come back.
  join_all(once, 1000, 1);
  CHECK(pthread_key_create(&key, late) == 0);
  join_all(with_destructor, 100, 2);
  IS(PLIB_OK, plib_incr(cache, "all", 3, 0, &n));
  CHECK(n == THREADS * ROUNDS + 1000 + 200);
  int findings = 0;
  plib_check_t check = {.size = sizeof check};
  IS(PLIB_OK, plib_check(cache, NULL, &findings, &check));
  CHECK(check.findings == 0);
  plib_close(cache);
  return 0;
}
