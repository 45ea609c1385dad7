// What every C test uses.
#ifndef CHECK_H
#define CHECK_H

#include <plib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition, \
              plib_last_error_message());                                                \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

// A call that must answer `status`.
#define IS(status, call)                                                                              \
  do {                                                                                                \
    plib_status_t got_ = (call);                                                                      \
    if (got_ != (status)) {                                                                           \
      fprintf(stderr, "%s:%d: %s is %d (%s), not %s; %s\n", __FILE__, __LINE__, #call, got_,          \
              plib_strerror(got_), #status, plib_last_error_message());                               \
      exit(1);                                                                                        \
    }                                                                                                 \
  } while (0)

static inline plib_t *create_sized(const char *path, uint64_t size) {
  plib_create_options_t options = {.size = sizeof options, .heap_size = size};
  plib_t *cache = NULL;
  IS(PLIB_OK, plib_create(path, &options, &cache));
  CHECK(cache != NULL);
  return cache;
}

static inline plib_t *create(const char *path) { return create_sized(path, 16 << 20); }

static inline plib_status_t set(plib_t *cache, const char *key, const char *value) {
  return plib_set(cache, key, strlen(key), value, strlen(value), 0, 0, NULL);
}

// Whether `key` has `value`.
static inline int has(plib_t *cache, const char *key, const char *value) {
  char buf[4096];
  size_t len = 0;
  return plib_get(cache, key, strlen(key), buf, sizeof buf, &len, NULL) == PLIB_OK && len == strlen(value) &&
         memcmp(buf, value, len) == 0;
}

#endif
