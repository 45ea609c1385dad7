// A process that ends or becomes another program by one thread while others are inside operations: other processes go on at
// once. And what runs on the way out (atexit, at_quick_exit, a handler of SIGABRT) may use the cache.
#include "interrupt.h"

typedef enum { BY_EXEC, BY_EXIT, BY_UNDERSCORE_EXIT, BY_QUICK_EXIT, BY_ABORT, BY_RETURN, BY_THREAD, WAYS } way_t;
static const char *const way_names[] = {"exec", "exit", "_exit", "quick_exit", "abort", "return from main", "exit in a handler"};

enum { WORKERS = 3, KEYS = 4, ROUNDS = 40 };

static atomic_long calls;

static void *work(void *number) {
  char key[16], value[3000];
  memset(value, 'v', sizeof value);
  for (long i = (long)number;; i++) {
    snprintf(key, sizeof key, "shared %ld", i % KEYS);
    plib_set(cache, key, 8, value, (size_t)(i * 37 % 3000), 0, 0, NULL);
    plib_append(cache, key, 8, "+", 1, 0, 0, NULL);
    if (i % 7 == 0) plib_delete(cache, key, 8);
    if (i % 50 == 0) do_large();
    calls++;
  }
  return NULL;
}

static const char *own_path, *way_out;

static void on_the_way_out(void) {
  plib_status_t status = plib_incr_init(cache, way_out, strlen(way_out), 1, 1, 0, NULL);
  if (status != PLIB_OK && status != PLIB_E_BUSY) _exit(9);
  if (!holds("stays", "here")) _exit(10);
}

static void on_abort(int number) {
  (void)number;
  on_the_way_out();
}

static void exit_in_handler(int number) {
  (void)number;
  exit(0);
}

static int end_by(way_t way) {
  way_out = way_names[way];
  CHECK(atexit(on_the_way_out) == 0 && at_quick_exit(on_the_way_out) == 0);
  if (way == BY_ABORT) signal(SIGABRT, on_abort);
  pthread_t threads[WORKERS];
  for (long i = 0; i < WORKERS; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
  for (long goal = 200 + rand() % 200; calls < goal;) sched_yield();
  switch (way) {
  case BY_EXEC: execl(own_path, own_path, "just end", (char *)NULL); _exit(11);
  case BY_EXIT: exit(0);
  case BY_UNDERSCORE_EXIT: _exit(0);
  case BY_QUICK_EXIT: quick_exit(0);
  case BY_ABORT: abort();
  case BY_THREAD:
    when_interrupted(exit_in_handler, 0);
    interrupted_at(1 + rand() % 900, do_set);
    exit(0);
  default: return 0;
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "just end") == 0) return 0;
  own_path = argv[0];
  cache = create_sized(argv[1], 32 << 20);
  IS(PLIB_OK, set(cache, "stays", "here"));
  double slowest = 0;
  long locks_before = stat_of("recovered_contexts");
  for (int round = 0; round < ROUNDS; round++)
    for (way_t way = 0; way < WAYS; way++) {
      srand((unsigned)(round * WAYS + way));
      pid_t child = fork();
      CHECK(child >= 0);
      if (child == 0) {
        calls = 0;
        return end_by(way);
      }
      int status;
      CHECK(waitpid(child, &status, 0) == child);
      if (way == BY_ABORT)
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
      else
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      // The dead hold nothing up: this process asks, and takes over.
      for (int k = 0; k < KEYS; k++) {
        char key[16];
        snprintf(key, sizeof key, "shared %d", k);
        double start = now_ms();
        IS(PLIB_OK, set(cache, key, "survivor"));
        IS(PLIB_OK, do_large());
        if (now_ms() - start > slowest) slowest = now_ms() - start;
      }
      plib_check_t check = {.size = sizeof check};
      IS(PLIB_OK, plib_check(cache, NULL, NULL, &check));
    }
  // The next to attach recovers all that is left.
  plib_t *again;
  IS(PLIB_OK, plib_open(argv[1], NULL, &again));
  no_findings();
  uint64_t ran;
  for (way_t way = BY_EXIT; way < WAYS; way++)
    if (way != BY_UNDERSCORE_EXIT) {
      IS(PLIB_OK, plib_incr(cache, way_names[way], strlen(way_names[way]), 0, &ran));
      CHECK(ran > ROUNDS / 2);
    }
  fprintf(stderr, "    %d processes ended in %d ways with threads inside; %ld contexts recovered; a set took %.0f ms at most\n", ROUNDS * WAYS,
          WAYS, stat_of("recovered_contexts") - locks_before, slowest);
  CHECK(stat_of("recovered_contexts") - locks_before > ROUNDS);
  plib_close(again);
  plib_close(cache);
  return 0;
}
