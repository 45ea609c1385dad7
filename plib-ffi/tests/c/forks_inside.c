// fork in a signal handler that interrupted an operation, at every instruction of it: the parent goes on as if nothing had
// been. The child is a client of its own inside the handler; if it returns from there, into its parent's operation, it
// dies at once. It never goes on with the parent's op context, whatever it did before.
#include "interrupt.h"
#include <sys/mman.h>
#include <sys/resource.h>

typedef enum { RETURNS, USES, MAPS, USES_AFTER_BARE_FORK, WAYS } way_t;
static const char *const way_names[] = {"returns", "uses the cache and returns", "fills the hole and returns",
                                        "uses the cache after a bare fork and returns"};

static const char *path;
static way_t way;
static int in_child, child_status;

// What a child may do in the handler before it returns.
static void be_a_child(void) {
  in_child = 1;
  alarm(10);
  if (way == USES || way == USES_AFTER_BARE_FORK) {
    if (!holds("filler 1", "filler") || set(cache, "child", "was here") != PLIB_OK) _exit(3);
  }
  // As many bytes as the parent's mapping of the heap had, and zeros: what the operation would find there.
  for (int i = 0; i < 3 && way == MAPS; i++)
    if (mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) _exit(4);
}

static void fork_here(int number) {
  (void)number;
  pid_t child = way == USES_AFTER_BARE_FORK ? (pid_t)syscall(SYS_fork) : fork();
  CHECK(child >= 0);
  if (child == 0)
    be_a_child();
  else
    CHECK(waitpid(child, &child_status, 0) == child);
}

// Where the call's heap and claim are in use the child dies. Before and behind that there is nothing of the parent's in its
// registers: it does an operation of its own, or has nothing left to do.
typedef enum { BEFORE, WITHIN, BEHIND } phase_t;

static long died, own_calls;

static void fork_inside(const operation_t *op) {
  long length = length_of(op), before = died, own_before = own_calls;
  phase_t phase = BEFORE;
  for (long n = 1; n <= length; n = next_moment(n, length)) {
    prepare(op);
    plib_status_t status = interrupted_at(n, op->call);
    if (in_child) _exit(status == PLIB_OK ? 0 : 5);
    if (!was_interrupted()) continue;
    CHECK(status == PLIB_OK || (op->call == do_delete && status == PLIB_E_NOT_FOUND)); // the child's own delete was first
    int killed = WIFSIGNALED(child_status) && WTERMSIG(child_status) == SIGSEGV;
    int finished = WIFEXITED(child_status) && WEXITSTATUS(child_status) == 0;
    if (killed) phase = phase == BEFORE ? WITHIN : phase;
    if (finished && phase == WITHIN) phase = BEHIND;
    if (!(killed || finished))
      fprintf(stderr, "%s, %s, instruction %ld: wait status %x, phase %d\n", op->name, way_names[way], n, child_status, phase);
    CHECK(killed || finished);
    // (An mset that grows is another call each time.)
    CHECK(!(killed && phase == BEHIND) || op->call == do_grow);
    died += killed;
    own_calls += finished;
    // A child that did a whole call of its own, before it was its parent's, did it twice.
    CHECK(holds("same", op->new) || (op->call == do_incr && holds("same", "43")) || (op->call == do_append && holds("same", "old++")) ||
          (op->call == do_delete && finished));
    IS(PLIB_OK, peer_sets("same"));
    IS(PLIB_OK, set(cache, "same", "own"));
  }
  reap(path);
  no_findings();
  fprintf(stderr, "    %s, child %s: %ld instructions, %ld children died, %ld calls were their own\n", op->name, way_names[way], length,
          died - before, own_calls - own_before);
  CHECK(died - before >= 15 && own_calls - own_before < died - before);
}

static long mappings(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(maps);
  long lines = 0;
  for (int c; (c = fgetc(maps)) != EOF;) lines += c == '\n';
  fclose(maps);
  return lines;
}

// A usual fork leaves nothing behind, in however many generations, and neither does opening and closing.
static void nothing_piles_up(void) {
  long before = mappings();
  for (int i = 0; i < 50; i++) {
    plib_t *again;
    IS(PLIB_OK, plib_open(path, NULL, &again));
    IS(PLIB_OK, set(again, "k", "v"));
    plib_close(again);
  }
  CHECK(mappings() <= before + 2);
  int status = 0;
  for (int generation = 0; generation < 10; generation++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child != 0) {
      CHECK(waitpid(child, &status, 0) == child);
      CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      if (generation > 0) _exit(0);
      return;
    }
    CHECK(holds("filler 1", "filler"));
    if (mappings() > before + 2) _exit(6);
  }
  _exit(0);
}

int main(int argc, char **argv) {
  (void)argc;
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  path = argv[1];
  cache = create(path);
  fill();
  start_peer();
  when_interrupted(fork_here, 0);
  for (way = 0; way < WAYS; way++)
    for (int i = 0; i < OPERATIONS; i++)
      // What a child may meet in memory does not depend on the call: one of each kind will do.
      if (way == USES || operations[i].call == do_get || operations[i].call == do_set || operations[i].call == do_incr)
        fork_inside(&operations[i]);
  nothing_piles_up();
  reap(path);
  CHECK(stat_of("contexts") <= 3);
  fprintf(stderr, "    %ld children died of going on, %ld did a call of their own\n", died, own_calls);
  plib_close(cache);
  return 0;
}
