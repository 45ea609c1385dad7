// Interrupts an operation at an exact instruction: the program single-steps itself through the call by the processor's trap
// flag, and after the n-th instruction SIGUSR1 arrives, as if another had sent it at that moment.
//
// The step handler only counts. SIGUSR1 is blocked while it runs, so it is delivered when it returns: between two
// instructions of the call, and under the signal mask that the call has there.
#ifndef INTERRUPT_H
#define INTERRUPT_H

#define _GNU_SOURCE // registers in a ucontext, gettid

#include "check.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { TRAP_FLAG = 0x100 };

static _Thread_local volatile long stepped, interrupt_at;

static void on_step(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  if (++stepped == interrupt_at) {
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), SIGUSR1);
  }
}

// What SIGUSR1 does from now on.
static inline void when_interrupted(void (*handler)(int), int flags) {
  struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO}, act = {.sa_handler = handler, .sa_flags = flags};
  sigemptyset(&step.sa_mask);
  sigaddset(&step.sa_mask, SIGUSR1);
  CHECK(sigaction(SIGTRAP, &step, NULL) == 0 && sigaction(SIGUSR1, &act, NULL) == 0);
}

// Runs `call`, with SIGUSR1 after its n-th instruction; 0 for never. stepped then says how many were counted.
static __attribute__((noinline)) plib_status_t interrupted_at(long n, plib_status_t (*call)(void)) {
  stepped = 0;
  interrupt_at = n;
  __asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq" ::: "memory", "cc");
  plib_status_t status = call();
  __asm__ volatile("pushfq\n andq $~0x100, (%%rsp)\n popfq" ::: "memory", "cc");
  return status;
}

// Whether the last call was interrupted (a call may take another way and be shorter than the one that was counted).
static inline int was_interrupted(void) { return stepped >= interrupt_at; }

static plib_t *cache;

enum { LARGE = 33000 }; // just in more than one block: its copy alone is 33000 steps
static char large_old[LARGE], large_new[LARGE];

// An operation, what it needs, and what its key may hold after an interruption: the old value or the new one.
typedef struct {
  const char *name;
  const char *key;
  const char *old, *new; // NULL: no item
  plib_status_t (*call)(void);
} operation_t;

static plib_status_t do_set(void) { return plib_set(cache, "same", 4, "new", 3, 0, 0, NULL); }
static plib_status_t do_delete(void) { return plib_delete(cache, "same", 4); }
static plib_status_t do_append(void) { return plib_append(cache, "same", 4, "+", 1, 0, 0, NULL); }
static plib_status_t do_touch(void) { return plib_touch(cache, "same", 4, 1000); }
static plib_status_t do_incr(void) { return plib_incr(cache, "same", 4, 1, NULL); }
static plib_status_t do_get(void) {
  char buf[64];
  size_t len;
  return plib_get(cache, "same", 4, buf, sizeof buf, &len, NULL);
}
static plib_status_t do_mget(void) {
  char buf[3][64];
  plib_get_request_t r[3] = {{.key = "other", .key_len = 5, .buf = buf[0], .buf_len = 64},
                             {.key = "same", .key_len = 4, .buf = buf[1], .buf_len = 64},
                             {.key = "third", .key_len = 5, .buf = buf[2], .buf_len = 64}};
  return plib_mget(cache, r, 3);
}
static plib_status_t do_mset(void) {
  plib_set_request_t r[3] = {{.key = "other", .key_len = 5, .value = "1", .value_len = 1},
                             {.key = "same", .key_len = 4, .value = "new", .value_len = 3},
                             {.key = "third", .key_len = 5, .value = "3", .value_len = 1}};
  plib_status_t status = plib_mset(cache, r, 3);
  return status == PLIB_OK ? (plib_status_t)r[1].status : status;
}
// Five keys that were never there: the index grows by a bucket, or two.
static plib_status_t do_grow(void) {
  static int next;
  char keys[5][16];
  plib_set_request_t r[5] = {0};
  for (int i = 0; i < 5; i++) {
    int len = snprintf(keys[i], sizeof keys[i], "grow %d", next++);
    r[i] = (plib_set_request_t){.key = keys[i], .key_len = (size_t)len, .value = "v", .value_len = 1};
  }
  return plib_mset(cache, r, 5);
}
static plib_status_t do_large(void) { return plib_set(cache, "same", 4, large_new, LARGE, 0, 0, NULL); }

static const operation_t operations[] = {
    {"get", "same", "old", "old", do_get},         {"set", "same", "old", "new", do_set},
    {"first set", "same", NULL, "new", do_set},    {"delete", "same", "old", NULL, do_delete},
    {"append", "same", "old", "old+", do_append},  {"touch", "same", "old", "old", do_touch},
    {"incr", "same", "41", "42", do_incr},         {"mget", "same", "old", "old", do_mget},
    {"mset", "same", "old", "new", do_mset},       {"mset that grows", "same", "old", "old", do_grow},
    {"large set", "same", large_old, large_new, do_large},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

// Whether the key holds nothing (NULL) or `value`.
static inline int holds(const char *key, const char *value) {
  static _Thread_local char buf[LARGE + 1];
  size_t len = 0;
  plib_status_t status = plib_get(cache, key, strlen(key), buf, sizeof buf, &len, NULL);
  if (value == NULL || status != PLIB_OK) return value == NULL && status == PLIB_E_NOT_FOUND;
  size_t want = value == large_old || value == large_new ? LARGE : strlen(value);
  return len == want && memcmp(buf, value, len) == 0;
}

static inline void prepare(const operation_t *op) {
  memset(large_old, 'o', LARGE);
  memset(large_new, 'n', LARGE);
  size_t len = op->old == large_old ? LARGE : op->old ? strlen(op->old) : 0;
  if (op->old)
    IS(PLIB_OK, plib_set(cache, op->key, 4, op->old, len, 0, 0, NULL));
  else
    CHECK(plib_delete(cache, op->key, 4) <= PLIB_E_NOT_FOUND);
  // The first incr makes a number of the text, once and for all.
  if (op->call == do_incr) {
    IS(PLIB_OK, plib_incr(cache, "same", 4, 1, NULL));
    IS(PLIB_OK, plib_decr(cache, "same", 4, 1, NULL));
  }
}

// How many instructions the call takes.
static inline long length_of(const operation_t *op) {
  prepare(op);
  for (int i = 0; i < 3; i++) interrupted_at(0, op->call); // bindings resolved, a block in the magazine
  prepare(op);
  IS(PLIB_OK, interrupted_at(0, op->call));
  return stepped;
}

// The moments that are tried: thirty or sixty of each call in CI, all of a small one and some thousands of others with
// PLIB_EXHAUSTIVE=1. Of a large value's copy, which is most of its call, one.
enum { BEFORE_COPY = 4000, AFTER_COPY = 1500 };

static inline long next_moment(long n, long length) {
  const char *exhaustive = getenv("PLIB_EXHAUSTIVE");
  long points = exhaustive && strcmp(exhaustive, "1") == 0 ? 3000 : length < 10000 ? 60 : 30;
  int copies = length > LARGE;
  long stride = (copies ? BEFORE_COPY + AFTER_COPY : length) / points;
  n += stride > 1 ? stride : 1;
  return copies && n > BEFORE_COPY && n < length - AFTER_COPY ? length - AFTER_COPY : n;
}

// More items than the first buckets are made for: from here on every few new items split one.
static inline void fill(void) {
  for (int i = 0; i < 5000; i++) {
    char key[16];
    snprintf(key, sizeof key, "filler %d", i);
    IS(PLIB_OK, set(cache, key, "filler"));
  }
}

static inline double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

// Another process that has the heap open: it is asked to store a key, and answers with the status.
static int peer_ask[2], peer_answer[2];
static double peer_slowest_ms;

static inline void start_peer(void) {
  CHECK(pipe(peer_ask) == 0 && pipe(peer_answer) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    char key[8];
    close(peer_ask[1]);
    while (read(peer_ask[0], key, sizeof key) == sizeof key) {
      plib_status_t status = set(cache, key, "peer");
      if (write(peer_answer[1], &status, sizeof status) != sizeof status) break;
    }
    _exit(0);
  }
  close(peer_ask[0]);
}

// BUSY is what it gets of a bucket that nobody will ever unlock.
static inline plib_status_t peer_sets(const char *key) {
  char name[8] = {0};
  strncpy(name, key, sizeof name - 1);
  double start = now_ms();
  CHECK(write(peer_ask[1], name, sizeof name) == sizeof name);
  plib_status_t status;
  CHECK(read(peer_answer[0], &status, sizeof status) == sizeof status);
  if (now_ms() - start > peer_slowest_ms) peer_slowest_ms = now_ms() - start;
  return status;
}

static void print_finding(void *context, const plib_finding_t *finding) {
  (void)context;
  fprintf(stderr, "finding: %s, place %lu, detail %lu, severe %d\n", finding->kind, (unsigned long)finding->place,
          (unsigned long)finding->detail, finding->severe);
}

// Attaching recovers whatever the dead left.
static inline void reap(const char *path) {
  plib_t *again;
  IS(PLIB_OK, plib_open(path, NULL, &again));
  plib_close(again);
}

// No finding at all: nothing severe, and nothing that waits to be found again.
static inline void no_findings(void) {
  plib_check_t check = {.size = sizeof check};
  IS(PLIB_OK, plib_check(cache, print_finding, NULL, &check));
  CHECK(check.findings == 0);
}

static inline void read_stat(void *wanted, const char *name, const char *value) {
  struct { const char *name; long value; } *w = wanted;
  if (strcmp(w->name, name) == 0) w->value = atol(value);
}

static inline long stat_of(const char *name) {
  struct { const char *name; long value; } wanted = {name, -1};
  IS(PLIB_OK, plib_stats(cache, read_stat, &wanted));
  return wanted.value;
}

#endif
