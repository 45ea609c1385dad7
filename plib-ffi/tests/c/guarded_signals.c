// Signals that come during calls on a guarded heap: no handler runs in the middle of one, none is lost, and the program goes on.
//
//   guarded_signals HEAP            linked with the library
//   guarded_signals HEAP            (built with -DGUARDED=0) without protection: what is hidden else is seen
//   guarded_signals HEAP LIBRARY    (built with -DLATE) loads the library itself, and sets handlers by the bare system call
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <plib.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(what)                                                       \
  do {                                                                    \
    if (!(what)) {                                                        \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what, plib_last_error_message()); \
      exit(1);                                                            \
    }                                                                     \
  } while (0)

#ifndef GUARDED
#define GUARDED 1
#endif

#ifdef LATE
#define FUNCTIONS(f) f(open) f(close) f(get) f(set) f(add) f(incr) f(check) f(isolation) f(last_error_message)
#define POINTER(name) static __typeof__(plib_##name) *late_##name;
FUNCTIONS(POINTER)
#define plib_open late_open
#define plib_close late_close
#define plib_get late_get
#define plib_set late_set
#define plib_add late_add
#define plib_incr late_incr
#define plib_check late_check
#define plib_isolation late_isolation
#define plib_last_error_message late_last_error_message
#define raw 1
#else
#define raw 0
#endif

static plib_t *cache;
static atomic_ulong plain, shown, nested, once, put_off, values, inside, on_vault;
static atomic_int stop;

// The kernel's view of the pages behind a key: every mapping with a ProtectionKey other than 0.
static struct { uintptr_t start, end; } guarded[64];
static int guarded_count;
// The trusted image's code.
static uintptr_t image_start, image_end;

static void find_guarded(void) {
  FILE *smaps = fopen("/proc/self/smaps", "r");
  CHECK(smaps);
  char line[512];
  uintptr_t start = 0, end = 0;
  guarded_count = 0;
  while (fgets(line, sizeof line, smaps)) {
    unsigned long a, b;
    int key;
    char mode[8] = "";
    if (sscanf(line, "%lx-%lx %7s", &a, &b, mode) == 3) start = a, end = b;
    // The launcher's has no name; nothing else that is executed here has none.
    int is_image = strstr(line, "/memfd:plib-image") || !strpbrk(line, "/[");
    if (is_image && mode[2] == 'x') image_start = start, image_end = end;
    if (sscanf(line, "ProtectionKey: %d", &key) == 1 && key != 0 && guarded_count < 64) {
      guarded[guarded_count].start = start;
      guarded[guarded_count++].end = end;
    }
  }
  fclose(smaps);
}

static int is_guarded(uintptr_t word) {
  for (int i = 0; i < guarded_count; i++)
    if (word >= guarded[i].start && word < guarded[i].end) return 1;
  return 0;
}

// Signals that came to a handler. The next is sent when the last one did: a machine that is slower than they come gets nothing else done.
static atomic_ulong handled;

static void on_plain(int signal) {
  (void)signal;
  plain++;
  handled++;
}

// What only the item "secret" holds.
#define SECRET 0x5ec2e75ec2e75ec3ul
static atomic_ulong exposed;

static int is_secret(uint64_t word) {
  return word == SECRET;
}

static void on_shown(int signal, siginfo_t *info, void *context) {
  (void)signal;
  ucontext_t *u = context;
  const unsigned char *rip = (const unsigned char *)u->uc_mcontext.gregs[REG_RIP];
  Dl_info where = {0};
  int in_library = dladdr(rip, &where) && strstr(where.dli_fname, "libplib");
  if (in_library && rip[-2] == 0x0f && rip[-1] == 0x05) put_off++;
  // In the library's own code nothing of the secret is to be seen, neither in registers nor on the stack; in the program's it may be.
  if (in_library || ((uintptr_t)rip >= image_start && (uintptr_t)rip < image_end)) {
    for (int r = 0; r <= REG_RIP; r++) exposed += is_secret((uint64_t)u->uc_mcontext.gregs[r]);
    for (int r = 0; r < 16; r++) {
      uint64_t halves[2];
      memcpy(halves, &u->uc_mcontext.fpregs->_xmm[r], 16);
      exposed += is_secret(halves[0]) + is_secret(halves[1]);
    }
    inside++;
  }
  on_vault += is_guarded((uintptr_t)&where);
  if (info->si_code == SI_QUEUE) values += (unsigned long)info->si_value.sival_ptr;
  shown++;
  handled++;
}

static void on_nested(int signal) {
  (void)signal;
  int before = errno;
  char buffer[256];
  size_t len;
  plib_status_t status = plib_get(cache, "other", 5, buffer, sizeof buffer, &len, NULL);
  CHECK(status == PLIB_OK && len == 5 && !memcmp(buffer, "other", 5));
  nested++;
  handled++;
  errno = before;
}

static sigjmp_buf back;
static volatile sig_atomic_t jumps;

static void on_jump(int signal) {
  (void)signal;
  handled++;
  if (jumps) siglongjmp(back, 1);
}

struct kernel_action { void *handler; unsigned long flags; void (*restorer)(void); unsigned long mask; };
extern void restore(void);
__asm__(".globl restore\nrestore: mov $15, %eax\nsyscall\n");

static void handle(int signal, void *handler, int flags, int all) {
  if (raw) {
    struct kernel_action action = {handler, (unsigned long)flags | 0x04000000, restore, all ? ~0ul : 0};
    CHECK(syscall(SYS_rt_sigaction, signal, &action, NULL, 8) == 0);
    return;
  }
  struct sigaction action = {.sa_flags = flags}, old;
  action.sa_sigaction = (void (*)(int, siginfo_t *, void *))handler;
  if (all) sigfillset(&action.sa_mask);
  CHECK(sigaction(signal, &action, NULL) == 0);
  CHECK(sigaction(signal, NULL, &old) == 0 && (void *)old.sa_sigaction == handler);
}

static void on_once(int signal) {
  handle(signal, (void *)on_once, SA_RESETHAND, 0);
  once++;
  handled++;
}

static unsigned long values_sent;
static atomic_int jumps_only;
static pthread_t target;

static void *send(void *unused) {
  (void)unused;
  unsigned long sent = handled;
  for (unsigned long n = 0; !stop; n++) {
    if (jumps_only) {
      CHECK(pthread_kill(target, SIGUSR1) == 0);
    } else if (n % 5 == 0) {
      siginfo_t info = {.si_code = SI_QUEUE};
      info.si_pid = getpid();
      info.si_value.sival_ptr = (void *)(n % 7 + 1);
      CHECK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN + 1, &info) == 0);
      values_sent += n % 7 + 1;
    } else {
      static const int signals[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGHUP};
      CHECK(pthread_kill(target, signals[n % 4]) == 0);
    }
    sent++;
    // Irregular, and with time between them for the calls.
    do {
      struct timespec pause = {.tv_nsec = 10000 + (long)(n * 2654435761u >> 16 & 0xffff)};
      nanosleep(&pause, NULL);
    } while (handled < sent);
  }
  return NULL;
}

typedef void (*handler_t)(int);
static volatile sig_atomic_t came;

static void on_other(int signal) {
  (void)signal;
  came++;
}

#define JUMPS (GUARDED ? 200 : 20)

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

extern handler_t __sysv_signal(int, handler_t);
extern handler_t bsd_signal(int, handler_t);

// Handlers that are set so come during calls as well, and find a stack that they can run on.
static void set_by(handler_t (*set)(int, handler_t)) {
  char buffer[256];
  size_t len;
  came = 0;
  CHECK(set(SIGPROF, on_other) != SIG_ERR);
  struct itimerval soon = {{0, 0}, {0, 300}};
  for (double end = now() + 10; now() < end && came < 100;) {
    int before = came;
    CHECK(setitimer(ITIMER_PROF, &soon, NULL) == 0);
    while (came == before) CHECK(plib_get(cache, "other", 5, buffer, sizeof buffer, &len, NULL) == PLIB_OK);
    // One of them is for once.
    handler_t there = set(SIGPROF, on_other);
    CHECK(set == __sysv_signal ? there == SIG_DFL : there == on_other);
  }
  CHECK(came >= 20);
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
#ifdef LATE
  void *library = dlopen(argv[2], RTLD_NOW);
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
#define LOOK_UP(name) late_##name = dlsym(library, "plib_" #name);
  FUNCTIONS(LOOK_UP)
#endif
  plib_options_t options = {.size = sizeof options, .isolation = GUARDED ? PLIB_ISOLATION_GUARDED : PLIB_ISOLATION_NONE};
  if (!raw) handle(SIGUSR1, (void *)on_plain, 0, 0);
  CHECK(plib_open(argv[1], &options, &cache) == PLIB_OK);
  CHECK(plib_isolation(cache) == options.isolation);
  CHECK(plib_set(cache, "other", 5, "other", 5, 0, 0, NULL) == PLIB_OK);
  uint64_t secret[100];
  for (int i = 0; i < 100; i++) secret[i] = SECRET;
  CHECK(plib_set(cache, "secret", 6, secret, sizeof secret, 0, 0, NULL) == PLIB_OK);
  find_guarded();
  CHECK(GUARDED ? guarded_count >= 2 && image_end > image_start : guarded_count == 0);
  if (raw) handle(SIGUSR1, (void *)on_plain, 0, 0);
  // The target of the process's signals is this thread alone.
  sigset_t all, mine;
  sigfillset(&all);
  CHECK(pthread_sigmask(SIG_SETMASK, &all, &mine) == 0);
  handle(SIGUSR2, (void *)on_nested, 0, 0);
  handle(SIGALRM, (void *)on_once, SA_RESETHAND, 0);
  handle(SIGHUP, (void *)on_shown, SA_SIGINFO | SA_RESTART, 1);
  // On a stack of its own, as some runtimes have all of theirs.
  static char alternate[64 << 10];
  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
  CHECK(sigaltstack(&stack, NULL) == 0);
  handle(SIGRTMIN + 1, (void *)on_shown, SA_SIGINFO | SA_ONSTACK, 0);
  target = pthread_self();
  pthread_t sender;
  CHECK(pthread_create(&sender, NULL, send, NULL) == 0);
  CHECK(pthread_sigmask(SIG_SETMASK, &mine, NULL) == 0);

  unsigned long calls = 0;
  char value[1000], buffer[1000];
  for (double end = now() + 3; now() < end;) {
    size_t want = 1 + calls * 37 % sizeof value, len;
    memset(value, (int)(calls % 251), want);
    CHECK(plib_set(cache, "mine", 4, value, want, 0, 0, NULL) == PLIB_OK);
    CHECK(plib_get(cache, "mine", 4, buffer, sizeof buffer, &len, NULL) == PLIB_OK);
    CHECK(len == want && !memcmp(buffer, value, len));
    uint64_t number;
    CHECK(plib_incr(cache, "count", 5, 1, &number) == PLIB_OK || plib_add(cache, "count", 5, "0", 1, 0, 0, NULL) == PLIB_OK);
    CHECK(plib_get(cache, "secret", 6, secret, sizeof secret, &len, NULL) == PLIB_OK && len == sizeof secret);
    calls++;
  }
  stop = 1;
  CHECK(pthread_join(sender, NULL) == 0);
  // What was put off is let in when the call has left, so nothing waits any more.
  fprintf(stderr, "%s: %lu calls; signals: %lu plain, %lu with a call, %lu once, %lu shown, of which %lu put off\n", raw ? "loaded late" : "linked",
          4 * calls, plain, nested, once, shown, put_off);
  CHECK(plain > 50 && nested > 50 && once > 50 && shown > 50);
  CHECK(values == values_sent);
  fprintf(stderr, "%lu looks into the library's code, %lu of the secret seen\n", inside, exposed);
  if (GUARDED && !raw) CHECK(exposed == 0 && on_vault == 0 && put_off > 5);
  // The same without a gate: the test can see it.
  if (!GUARDED) CHECK(exposed > 0);

  // Jumping out of a handler abandons no call: it runs outside of them. More jumps than there are seats.
  for (int flags = 0; !raw && flags < 4; flags++) {
    handle(SIGUSR1, (void *)on_jump, (flags & 1 ? SA_NODEFER : 0) | (flags & 2 ? SA_ONSTACK : 0), 0);
    stop = 0;
    jumps_only = 1;
    volatile unsigned long jumped = 0;
    CHECK(pthread_create(&sender, NULL, send, NULL) == 0);
    for (double end = now() + 20; now() < end && jumped < JUMPS;) {
      if (sigsetjmp(back, 1)) {
        jumped++;
        continue;
      }
      jumps = 1;
      CHECK(plib_set(cache, "mine", 4, value, 100, 0, 0, NULL) == PLIB_OK);
      jumps = 0;
    }
    jumps = 0;
    stop = 1;
    CHECK(pthread_join(sender, NULL) == 0);
    fprintf(stderr, "%lu jumps out of handlers%s\n", jumped, flags & 2 ? " on a stack of their own" : "");
    CHECK(jumped >= JUMPS);
  }
  if (!raw) {
    // By the C library's other functions, whichever of them `signal` is.
    set_by(bsd_signal);
    set_by(__sysv_signal);
    set_by(sigset);
  }
  plib_check_t check = {.size = sizeof check};
  CHECK(plib_check(cache, NULL, NULL, &check) == PLIB_OK && check.severe == 0 && check.claimed_blocks == 0);
  plib_close(cache);
  return 0;
}
