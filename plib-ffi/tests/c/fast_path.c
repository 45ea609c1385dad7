// Loops of each operation between marks that strace shows: nothing may stand between them.
#include "check.h"
#include <unistd.h>

enum { ROUNDS = 5000 };

// A write that fails at once, and that the trace shows.
static void mark(const char *what, const char *name) {
  char text[64];
  int len = snprintf(text, sizeof text, "%s %s", what, name);
  if (write(-1, text, (size_t)len) != -1) exit(2);
}

#define LOOP(name, call)                   \
  do {                                     \
    mark("begin", name);                   \
    for (int i = 0; i < ROUNDS; i++) {     \
      size_t key_len = 8;                  \
      char key[9] = "key-0000";            \
      memcpy(key + 4, &i, 4);              \
      IS(PLIB_OK, call);                   \
    }                                      \
    mark("end", name);                     \
  } while (0)

int main(int argc, char **argv) {
  (void)argc;
  plib_t *c = create_sized(argv[1], 64 << 20);
  char value[128] = "41", buf[256];
  size_t len;
  uint64_t cas, n;
  plib_item_t item;
  IS(PLIB_OK, set(c, "number", "1"));
  // The first call of a thread claims its op context; a later one is the fast path.
  LOOP("set", plib_set(c, key, key_len, value, sizeof value, 0, 0, &cas));
  LOOP("overwrite", plib_set(c, key, key_len, value, sizeof value, 0, 60, &cas));
  LOOP("get", plib_get(c, key, key_len, buf, sizeof buf, &len, &item));
  LOOP("append", plib_append(c, key, key_len, "x", 1, 0, 0, NULL));
  LOOP("replace", plib_replace(c, key, key_len, value, 64, 0, 0, NULL));
  LOOP("touch", plib_touch(c, key, key_len, 100));
  LOOP("gat", plib_gat(c, key, key_len, 0, buf, sizeof buf, &len, NULL));
  LOOP("incr", (key_len = 6, plib_incr(c, "number", key_len, 1, &n)));
  LOOP("mget", plib_mget(c, &(plib_get_request_t){.key = key, .key_len = key_len, .buf = buf, .buf_len = sizeof buf}, 1));
  LOOP("delete", plib_delete(c, key, key_len));
  LOOP("add", plib_add(c, key, key_len, value, sizeof value, 0, 0, NULL));
  LOOP("cas", (plib_get(c, key, key_len, buf, sizeof buf, &len, &item),
               plib_cas(c, key, key_len, value, 32, 0, 0, item.cas, NULL)));
  plib_close(c);
  return 0;
}
