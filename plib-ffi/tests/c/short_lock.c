// What a handler may wait for, having interrupted malloc, is never held while somebody allocates, maps or reads files. Libc's
// functions for that are replaced here: inside each of them, as plib calls it, another thread makes its first call, and must
// be done in no time.
#define _GNU_SOURCE // RTLD_NEXT, pthread_timedjoin_np

#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static plib_t *cache;
static _Thread_local int watched;

typedef enum { STACK, DESTRUCTOR, MAP, UNMAP, OPEN, FORK, KINDS } kind_t;
static const char *const names[] = {"asking for the stack", "registering a destructor", "mapping", "unmapping", "opening a file", "fork"};
static int met[KINDS];

static void *first_call(void *unused) {
  (void)unused;
  CHECK(has(cache, "key", "value"));
  return NULL;
}

// Another thread, of which plib knows nothing, begins.
static void another_begins(kind_t kind) {
  if (!watched) return;
  watched = 0;
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, first_call, NULL) == 0);
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 10;
  int late = pthread_timedjoin_np(thread, NULL, &until);
  if (late) fprintf(stderr, "another thread waited during %s\n", names[kind]);
  CHECK(late == 0);
  met[kind]++;
  watched = 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes) {
  another_begins(STACK);
  return REAL(pthread_getattr_np)(thread, attributes);
}

extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
int __cxa_thread_atexit_impl(void (*run)(void *), void *of, void *library) {
  another_begins(DESTRUCTOR);
  return REAL(__cxa_thread_atexit_impl)(run, of, library);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset) {
  another_begins(MAP);
  return REAL(mmap)(at, len, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t len, int protection, int flags, int fd, off_t offset) { return mmap(at, len, protection, flags, fd, offset); }

int munmap(void *at, size_t len) {
  another_begins(UNMAP);
  return REAL(munmap)(at, len);
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  int mode = va_arg(rest, int);
  va_end(rest);
  another_begins(OPEN);
  return REAL(open64)(path, flags, mode);
}

// Registered before plib's, so it runs behind it, and before libc takes malloc's locks.
static void while_forking(void) { another_begins(FORK); }

static void *watched_first_call(void *unused) {
  watched = 1;
  first_call(unused);
  watched = 0;
  return NULL;
}

int main(int argc, char **argv) {
  (void)argc;
  CHECK(pthread_atfork(while_forking, NULL, NULL) == 0);
  alarm(300);
  plib_create_options_t options = {.size = sizeof options, .heap_size = 32 << 20, .contexts = 512};
  IS(PLIB_OK, plib_create(argv[1], &options, &cache));
  IS(PLIB_OK, set(cache, "key", "value"));
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, watched_first_call, NULL) == 0 && pthread_join(thread, NULL) == 0);

  plib_t *again;
  watched = 1;
  IS(PLIB_OK, plib_open(argv[1], NULL, &again));
  IS(PLIB_OK, set(again, "key", "value"));
  plib_close(again);
  pid_t child = fork();
  CHECK(child >= 0);
  watched = 0;
  if (child == 0) _exit(has(cache, "key", "value") ? 0 : 1);
  int status;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  for (int i = 0; i < KINDS; i++) {
    fprintf(stderr, "    another thread began during %s: %d times\n", names[i], met[i]);
    CHECK(met[i] > 0);
  }
  plib_close(cache);
  return 0;
}
