// fork with and without exec: a child is a client of its own, its death is its own, and a dead parent is dead.
#include "check.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

static plib_t *cache;

static int clients(void) {
  // Slots in use, by the counter of memcached's name.
  extern void one_counter(void *, const char *, const char *);
  int n = -1;
  IS(PLIB_OK, plib_stats(cache, one_counter, &n));
  return n;
}

void one_counter(void *context, const char *name, const char *value) {
  if (strcmp(name, "curr_connections") == 0) *(int *)context = atoi(value);
}

static void joined(pid_t child) {
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static pid_t start(void (*run)(void)) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    run();
    _exit(0);
  }
  return child;
}

static void child_works(void) {
  CHECK(has(cache, "parent", "here"));
  for (int i = 0; i < 1000; i++) IS(PLIB_OK, plib_incr(cache, "n", 1, 1, NULL));
  CHECK(clients() >= 2);
}

static void child_and_grandchild(void) {
  child_works();
  joined(start(child_works));
  CHECK(has(cache, "parent", "here"));
}

static void child_closes(void) {
  plib_close(cache);
  IS(PLIB_E_INVALID, set(cache, "k", "v"));
}

static void child_uses_and_closes(void) {
  child_works();
  child_closes();
}

static void child_without_descriptors(void) {
  // As a daemon does; and then other files take the numbers.
  for (int fd = 3; fd < 1024; fd++) close(fd);
  for (int fd = 3; fd < 400; fd++) CHECK(dup(2) >= 0);
  child_works();
}

static void *work_in_thread(void *unused) {
  (void)unused;
  child_works();
  return NULL;
}

static void child_with_threads(void) {
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, work_in_thread, NULL) == 0);
  child_works();
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static atomic_int stop;

static void *busy_thread(void *path) {
  // Operations, and openings and closings, so that forks meet every state.
  while (!stop) {
    plib_t *other;
    IS(PLIB_OK, set(cache, "busy", "thread"));
    IS(PLIB_OK, plib_open(path, NULL, &other));
    IS(PLIB_OK, set(other, "busy", "thread"));
    plib_close(other);
  }
  return NULL;
}

static uint64_t counted(void) {
  uint64_t n;
  IS(PLIB_OK, plib_incr(cache, "n", 1, 0, &n));
  return n;
}

// A parent that is killed while its child lives on must count as dead: its slot is given to the next.
static void dead_parent(const char *path) {
  int hold[2], told[2];
  CHECK(pipe(hold) == 0 && pipe(told) == 0);
  pid_t parent = fork();
  if (parent == 0) {
    plib_t *own;
    IS(PLIB_OK, plib_open(path, NULL, &own));
    IS(PLIB_OK, set(own, "k", "v"));
    if (fork() == 0) {
      // A child that never touches the cache, and outlives its parent.
      close(hold[1]);
      char c;
      _exit((int)read(hold[0], &c, 1));
    }
    CHECK(write(told[1], "x", 1) == 1);
    pause();
  }
  close(hold[0]);
  char c;
  CHECK(read(told[0], &c, 1) == 1);
  int before = clients();
  CHECK(kill(parent, SIGKILL) == 0 && waitpid(parent, NULL, 0) == parent);
  // A new client recovers the dead one on registering.
  plib_t *next;
  IS(PLIB_OK, plib_open(path, NULL, &next));
  int after = clients();
  CHECK(after <= before);
  plib_close(next);
  CHECK(clients() == before - 1);
  close(hold[1]);
}

int main(int argc, char **argv) {
  if (argc > 2) {
    // Started by exec from a child: a process like any other.
    IS(PLIB_OK, plib_open(argv[1], NULL, &cache));
    child_works();
    plib_close(cache);
    return 0;
  }
  cache = create(argv[1]);
  IS(PLIB_OK, set(cache, "parent", "here"));
  IS(PLIB_OK, set(cache, "n", "0"));
  int before = clients();
  joined(start(child_works));
  joined(start(child_and_grandchild));
  joined(start(child_closes));
  joined(start(child_uses_and_closes));
  joined(start(child_without_descriptors));
  joined(start(child_with_threads));
  CHECK(counted() == 1000 * (1 + 2 + 1 + 1 + 4));

  pid_t execed = fork();
  if (execed == 0) {
    execl(argv[0], argv[0], argv[1], "again", (char *)NULL);
    _exit(errno);
  }
  joined(execed);
  CHECK(counted() == 10000);

  // Forks of a process whose other thread is at work.
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, busy_thread, argv[1]) == 0);
  for (int i = 0; i < 100; i++) {
    pid_t children[3];
    for (int j = 0; j < 3; j++) children[j] = start(child_works);
    for (int j = 0; j < 3; j++) joined(children[j]);
  }
  stop = 1;
  pthread_join(thread, NULL);
  CHECK(counted() == 310000);
  dead_parent(argv[1]);
  plib_t *last;
  IS(PLIB_OK, plib_open(argv[1], NULL, &last));
  plib_close(last);
  CHECK(clients() == before);
  plib_check_t check = {.size = sizeof check};
  IS(PLIB_OK, plib_check(cache, NULL, NULL, &check));
  CHECK(check.severe == 0);
  plib_close(cache);
  return 0;
}
