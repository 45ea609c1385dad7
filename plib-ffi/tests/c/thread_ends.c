// A thread that ends in the middle of an operation, at every instruction of it: by pthread_exit in a signal handler, by
// cancellation, or by the bare system call that tells nobody. What it held is free again, and the key has the old value or
// the new one.
#include "interrupt.h"
#include <fcntl.h>

typedef enum { BY_EXIT, BY_CANCEL, BY_SYSTEM_CALL } way_t;
static const char *const way_names[] = {"pthread_exit", "pthread_cancel", "SYS_exit"};

static way_t way;
static atomic_int ended_inside;

static void leave(int number) {
  (void)number;
  ended_inside = 1;
  if (way == BY_EXIT) pthread_exit(NULL);
  if (way == BY_CANCEL) pthread_cancel(pthread_self());
  syscall(SYS_exit, 0);
}

typedef struct {
  const operation_t *op;
  long n;
  pid_t tid;
} victim_t;

static void *run_victim(void *of) {
  victim_t *victim = of;
  int old;
  victim->tid = (pid_t)syscall(SYS_gettid);
  if (way == BY_CANCEL) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
  holds("filler 1", "filler"); // not the first operation
  interrupted_at(victim->n, victim->op->call);
  return NULL;
}

static void on_thread(void *(*run)(void *), void *argument) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, run, argument) == 0 && pthread_join(thread, NULL) == 0);
}

static void *use_another_key(void *unused) {
  IS(PLIB_OK, set(cache, "filler 2", "filler"));
  return unused;
}

static long points;

static void end_at_every_instruction(const operation_t *op) {
  long length = length_of(op), before = points;
  for (long n = 1; n <= length; n = next_moment(n, length)) {
    prepare(op);
    ended_inside = 0;
    victim_t victim = {.op = op, .n = n};
    on_thread(run_victim, &victim);
    if (!ended_inside) continue;
    // Nobody was told of a thread that made the bare system call. Whoever meets its lock asks, as does the next new thread.
    if (way == BY_SYSTEM_CALL && n % 2) on_thread(use_another_key, NULL);
    if (way == BY_SYSTEM_CALL && n % 2 == 0) CHECK(plib_touch(cache, "same", 4, 0) <= PLIB_E_NOT_FOUND);
    int old = holds("same", op->old), new = holds("same", op->new);
    plib_status_t peer = peer_sets("same");
    if (!(old || new) || peer) fprintf(stderr, "%s, %s, instruction %ld: peer's %d\n", op->name, way_names[way], n, peer);
    CHECK((old || new) && peer == PLIB_OK);
    IS(PLIB_OK, set(cache, "same", "own"));
    points++;
  }
  if (way == BY_SYSTEM_CALL) on_thread(use_another_key, NULL);
  no_findings();
  fprintf(stderr, "    %s, %s: %ld instructions, ended behind %ld of them\n", op->name, way_names[way], length, points - before);
  CHECK(points - before >= 20);
}

// The kernel gives the number of a thread that ended inside to a new one: the operation is not the new thread's.
static void a_number_used_again(void) {
  int last_pid = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
  const operation_t *op = &operations[1];
  long n = length_of(op) / 2, again = 0;
  way = BY_SYSTEM_CALL; // as it was
  for (int i = 0; i < 20 && last_pid >= 0; i++) {
    prepare(op);
    victim_t victim = {.op = op, .n = n + i * 5};
    on_thread(run_victim, &victim);
    char text[16];
    int len = snprintf(text, sizeof text, "%d", victim.tid - 1);
    victim_t next = {.op = &operations[0], .n = 0};
    if (pwrite(last_pid, text, (size_t)len, 0) != len) break;
    on_thread(run_victim, &next);
    IS(PLIB_OK, peer_sets("same"));
    again += next.tid == victim.tid;
  }
  if (last_pid >= 0) close(last_pid);
  fprintf(stderr, "    %ld thread numbers used again%s\n", again, again ? "" : " (this user may not choose them)");
  CHECK(again > 0 || geteuid() != 0 || last_pid < 0);
  no_findings();
}

// Cancellation of the usual kind waits for a place where the thread says that it may be cancelled; no call of plib is one.
static atomic_int started, finished;
static char other_path[4200];

static void *is_cancelled_later(void *unused) {
  (void)unused;
  started = 1;
  pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
  while (started != 2) IS(PLIB_OK, do_set());
  plib_create_options_t options = {.size = sizeof options, .heap_size = 8 << 20};
  plib_t *other;
  IS(PLIB_OK, plib_create(other_path, &options, &other));
  plib_info_t info = {.size = sizeof info};
  IS(PLIB_OK, plib_info(other, &info));
  IS(PLIB_OK, plib_set(other, "k", 1, "v", 1, 0, 0, NULL));
  no_findings();
  plib_close(other);
  IS(PLIB_OK, plib_open(other_path, NULL, &other));
  plib_close(other);
  IS(PLIB_OK, plib_destroy(other_path));
  finished++;
  pthread_testcancel();
  abort();
}

static void no_call_is_a_cancellation_point(const char *path) {
  snprintf(other_path, sizeof other_path, "%s-other", path);
  for (int i = 0; i < 10; i++) {
    pthread_t thread;
    void *result;
    started = 0;
    CHECK(pthread_create(&thread, NULL, is_cancelled_later, NULL) == 0);
    while (!started) sched_yield();
    CHECK(pthread_cancel(thread) == 0);
    started = 2;
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED && finished == i + 1);
  }
}

// Asynchronous cancellation from outside, at whatever moment: also of a thread's first operation.
static void *is_cancelled_at_once(void *unused) {
  (void)unused;
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
  for (started = 1;;) do_set(), do_large(), do_mset(), do_append();
  return NULL;
}

static void cancelled_at_any_moment(void) {
  for (int i = 0; i < 300; i++) {
    pthread_t thread;
    started = 0;
    CHECK(pthread_create(&thread, NULL, is_cancelled_at_once, NULL) == 0);
    while (!started) sched_yield();
    for (volatile int spin = i * 997 % 30000; spin > 0; spin--) continue;
    CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, NULL) == 0);
    IS(PLIB_OK, peer_sets("same"));
    IS(PLIB_OK, do_set());
  }
  no_findings();
}

// Destructors of thread-specific data run when plib's own have run; calls in them, and in handlers that interrupt them, work,
// and can be jumped out of.
static pthread_key_t key;
static sigjmp_buf back;
static atomic_long late_handlers;

static void late_handler(int number) {
  (void)number;
  late_handlers++;
  plib_status_t status = do_set();
  CHECK(status == PLIB_OK || status == PLIB_E_BUSY);
  if (late_handlers % 2) siglongjmp(back, 1);
}

static void late(void *n) {
  if (sigsetjmp(back, 1) == 0) interrupted_at((long)n, do_append);
  plib_status_t status = do_set();
  CHECK(status == PLIB_OK);
}

static void *with_destructor(void *n) {
  IS(PLIB_OK, do_set());
  pthread_setspecific(key, n);
  return NULL;
}

static void destructors_may_use_the_cache(void) {
  CHECK(pthread_key_create(&key, late) == 0);
  when_interrupted(late_handler, 0);
  for (long n = 1; n < 3000; n += 50) {
    on_thread(with_destructor, (void *)n);
    IS(PLIB_OK, peer_sets("same"));
  }
  CHECK(late_handlers > 20);
  no_findings();
}

int main(int argc, char **argv) {
  (void)argc;
  cache = create_sized(argv[1], 32 << 20);
  fill();
  start_peer();
  when_interrupted(leave, 0);
  for (way = BY_EXIT; way <= BY_SYSTEM_CALL; way++)
    for (int i = 0; i < OPERATIONS; i++) end_at_every_instruction(&operations[i]);
  a_number_used_again();
  no_call_is_a_cancellation_point(argv[1]);
  cancelled_at_any_moment();
  destructors_may_use_the_cache();
  CHECK(stat_of("contexts") <= 3);
  fprintf(stderr, "    %ld threads ended inside; the peer waited %.0f ms at most\n", points, peer_slowest_ms);
  plib_close(cache);
  return 0;
}
