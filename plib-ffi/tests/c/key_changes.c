// A key that changes while it is copied: what is stored is some key's item, whichever bytes were caught, and the heap stays whole.
//
// The key lies across two pages, of which the second cannot be read at first. The library reads the key's first bytes, faults on the
// rest, and the handler of the fault changes what was read already.
#define _GNU_SOURCE
#include "check.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

static char *pages;
static volatile sig_atomic_t faults;

static void on_fault(int signal, siginfo_t *info, void *context) {
  (void)signal;
  (void)context;
  if (!info->si_addr || (char *)info->si_addr < pages + 4096 || (char *)info->si_addr >= pages + 8192) _exit(99);
  faults++;
  mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE);
  for (char *byte = pages + 4096 - 8; byte < pages + 4096; byte++) *byte = (char)(*byte ^ 0x20);
}

int main(int argc, char **argv) {
  (void)argc;
  plib_t *cache = create(argv[1]);
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
  pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages != MAP_FAILED);
  unsigned stored = 0;
  for (size_t len = 9; len <= 40; len++) {
    for (size_t before = 1; before < len; before++) {
      char *key = pages + 4096 - before;
      CHECK(mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE) == 0);
      for (size_t i = 0; i < len; i++) key[i] = (char)('a' + (i * 7 + before) % 26);
      CHECK(mprotect(pages + 4096, 4096, PROT_NONE) == 0);
      CHECK(plib_set(cache, key, len, "value", 5, 0, 0, NULL) == PLIB_OK);
      stored++;
    }
  }
  CHECK(faults == (int)stored);
  plib_check_t report = {.size = sizeof report};
  CHECK(plib_check(cache, NULL, NULL, &report) == PLIB_OK);
  CHECK(report.severe == 0 && report.findings == 0 && report.items > 0);
  printf("%u keys changed while they were copied; %llu items\n", stored, (unsigned long long)report.items);
  plib_close(cache);
  return 0;
}
