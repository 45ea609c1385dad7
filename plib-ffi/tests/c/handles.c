// Handles: several heaps, closed ones, and closing while other threads are inside calls.
#include "check.h"
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { HEAPS = 20 };

static int count_maps(const char *path) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[8192];
  int n = 0;
  while (fgets(line, sizeof line, maps)) n += strstr(line, path) != NULL;
  fclose(maps);
  return n;
}

static int count_fds(void) {
  DIR *dir = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

// More heaps than a thread has slots for.
static void many_heaps(const char *path) {
  plib_t *caches[HEAPS];
  char names[HEAPS][4200];
  for (int i = 0; i < HEAPS; i++) {
    snprintf(names[i], sizeof names[i], "%s-%d", path, i);
    caches[i] = create_sized(names[i], 8 << 20);
  }
  for (int round = 0; round < 100; round++)
    for (int i = 0; i < HEAPS; i++) {
      char value[32];
      snprintf(value, sizeof value, "%d %d", round, i);
      IS(PLIB_OK, set(caches[i], "which", value));
    }
  for (int i = 0; i < HEAPS; i++) {
    char value[32];
    snprintf(value, sizeof value, "%d %d", 99, i);
    CHECK(has(caches[i], "which", value));
    plib_close(caches[i]);
    IS(PLIB_E_INVALID, set(caches[i], "which", "none"));
    IS(PLIB_OK, plib_destroy(names[i]));
  }
}

// Opening and closing again and again leaves nothing behind: no mapping, no descriptor, no client slot, no context.
static void nothing_is_left(const char *path) {
  int without = count_fds();
  plib_t *first = create(path);
  int fds = count_fds(), maps = count_maps(path);
  plib_t *last = NULL;
  for (int i = 0; i < 300; i++) {
    plib_t *c;
    IS(PLIB_OK, plib_open(path, NULL, &c));
    CHECK(c != last && c != first);
    IS(PLIB_OK, set(c, "k", "v"));
    plib_close(c);
    plib_close(c);
    IS(PLIB_E_INVALID, set(c, "k", "v"));
    last = c;
  }
  CHECK(count_fds() == fds && count_maps(path) == maps && maps > 0);
  CHECK(has(first, "k", "v"));
  plib_close(first);
  CHECK(fds > without && count_fds() == without && count_maps(path) == 0);
}

static plib_t *_Atomic shared;
static atomic_long done;
static atomic_int refused_calls, stop;

static void *hammer(void *unused) {
  (void)unused;
  while (!stop) {
    char value[200];
    memset(value, 'x', sizeof value);
    plib_t *c = shared;
    plib_status_t status = plib_set(c, "hammer", 6, value, sizeof value, 0, 0, NULL);
    if (status == PLIB_E_INVALID)
      refused_calls++;
    else
      CHECK(status == PLIB_OK);
    size_t len;
    status = plib_get(c, "hammer", 6, value, sizeof value, &len, NULL);
    CHECK(status == PLIB_OK || status == PLIB_E_INVALID);
    done++;
  }
  return NULL;
}

// Threads call without pause while the handle is closed under them and replaced by another.
static void closing_under_load(const char *path) {
  plib_t *c;
  IS(PLIB_OK, plib_open(path, NULL, &c));
  shared = c;
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, hammer, NULL) == 0);
  for (int i = 0; i < 200; i++) {
    plib_t *next;
    IS(PLIB_OK, plib_open(path, NULL, &next));
    plib_t *old = shared;
    // Half the time the threads meet a closed handle.
    if (i % 2) shared = next;
    plib_close(old);
    shared = next;
    usleep(500);
  }
  stop = 1;
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  CHECK(done > 0 && refused_calls > 0);
  IS(PLIB_OK, plib_check(shared, NULL, NULL, NULL));
  plib_close(shared);
  CHECK(count_maps(path) == 0);
}

static plib_t *to_close;

static int close_inside(void *context, const plib_entry_t *entry) {
  (void)entry;
  ++*(int *)context;
  plib_close(to_close);
  return 0;
}

static void closing_in_a_callback(const char *path) {
  IS(PLIB_OK, plib_open(path, NULL, &to_close));
  IS(PLIB_OK, set(to_close, "a", "1"));
  IS(PLIB_OK, set(to_close, "b", "2"));
  int calls = 0;
  IS(PLIB_E_INVALID, plib_scan(to_close, close_inside, &calls));
  CHECK(calls == 1 && count_maps(path) == 0);
}

int main(int argc, char **argv) {
  (void)argc;
  many_heaps(argv[1]);
  nothing_is_left(argv[1]);
  closing_under_load(argv[1]);
  closing_in_a_callback(argv[1]);
  // By name, in $PLIB_DIR.
  plib_t *c = create("named");
  IS(PLIB_OK, set(c, "k", "v"));
  plib_close(c);
  IS(PLIB_OK, plib_open("named", NULL, &c));
  CHECK(has(c, "k", "v"));
  IS(PLIB_OK, plib_destroy("named"));
  // A destroyed heap goes on for those who have it.
  CHECK(has(c, "k", "v"));
  IS(PLIB_OK, set(c, "k", "w"));
  plib_close(c);
  return 0;
}
