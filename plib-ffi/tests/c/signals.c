// A signal handler that interrupts a call on the same handle works from an op context of its own.
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <unistd.h>

static plib_t *cache;
static atomic_long handled, refused, busy;

static void on_signal(int number) {
  (void)number;
  char buf[4096];
  size_t len;
  plib_status_t status = plib_get(cache, "large", 5, buf, sizeof buf, &len, NULL);
  if (status == PLIB_OK)
    CHECK(len == 3000);
  else {
    CHECK(status == PLIB_E_BUSY || status == PLIB_E_NOT_FOUND);
    refused++;
  }
  // Failures must not allocate: the interrupted code may be malloc itself.
  IS(PLIB_E_KEY, plib_delete(cache, "", 0));
  status = plib_get(cache, "large", 5, buf, 10, &len, NULL);
  CHECK(status == PLIB_E_TOO_SMALL || status == PLIB_E_BUSY || status == PLIB_E_NOT_FOUND);
  IS(PLIB_E_INVALID, plib_delete(NULL, "k", 1));
  // The key that the interrupted call may be storing, with its bucket locked by this very thread: then BUSY.
  status = plib_set(cache, "same", 4, "handler", 7, 0, 0, NULL);
  CHECK(status == PLIB_OK || status == PLIB_E_BUSY);
  busy += status == PLIB_E_BUSY;
  handled++;
}

int main(int argc, char **argv) {
  (void)argc;
  cache = create(argv[1]);
  char large[3000];
  memset(large, 'x', sizeof large);
  IS(PLIB_OK, plib_set(cache, "large", 5, large, sizeof large, 0, 0, NULL));
  struct sigaction action = {.sa_handler = on_signal};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  struct itimerval timer = {.it_interval = {.tv_usec = 200}, .it_value = {.tv_usec = 200}};
  CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
  long rounds = 0;
  while (handled < 3000) {
    IS(PLIB_OK, plib_set(cache, "same", 4, large, sizeof large, 0, 0, NULL));
    IS(PLIB_OK, plib_set(cache, "large", 5, large, sizeof large, 0, 0, NULL));
    size_t len;
    IS(PLIB_OK, plib_get(cache, "large", 5, large, sizeof large, &len, NULL));
    for (int i = 0; i < 100; i++) free(memset(malloc((size_t)i * 100 + 1), 1, 1));
    IS(PLIB_E_TOO_SMALL, plib_get(cache, "large", 5, large, 1, &len, NULL));
    CHECK(strstr(plib_last_error_message(), "bytes") || strlen(plib_last_error_message()) > 3);
    rounds++;
  }
  timer = (struct itimerval){0};
  CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
  CHECK(rounds > 0 && handled > refused);
  plib_check_t check = {.size = sizeof check};
  IS(PLIB_OK, plib_check(cache, NULL, NULL, &check));
  CHECK(check.findings == 0);
  plib_close(cache);
  return 0;
}
