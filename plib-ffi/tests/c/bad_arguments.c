// Every bad argument gets its own status, and nothing changes.
#include "check.h"
#include <inttypes.h>

static char *heap_address(const char *path) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[8192];
  uintptr_t start = 0;
  while (fgets(line, sizeof line, maps))
    if (strstr(line, path)) {
      CHECK(sscanf(line, "%" SCNxPTR, &start) == 1);
      break;
    }
  fclose(maps);
  CHECK(start != 0);
  return (char *)start;
}

static int nothing(void *context, const plib_entry_t *entry) {
  (void)context, (void)entry;
  return 0;
}

static void no_line(void *context, const char *name, const char *value) { (void)context, (void)name, (void)value; }

// Every function on a handle that is not open.
static void refused(plib_t *c) {
  char buf[8];
  size_t len;
  uint64_t n = 0, cursor = 0;
  plib_get_request_t get = {.key = "k", .key_len = 1};
  plib_set_request_t set_request = {.key = "k", .key_len = 1};
  plib_delete_request_t delete = {.key = "k", .key_len = 1};
  plib_info_t info = {.size = sizeof info};
  plib_check_t check = {.size = sizeof check};
  IS(PLIB_E_INVALID, plib_get(c, "k", 1, buf, 8, &len, NULL));
  IS(PLIB_E_INVALID, plib_gat(c, "k", 1, 0, buf, 8, &len, NULL));
  IS(PLIB_E_INVALID, plib_set(c, "k", 1, "v", 1, 0, 0, NULL));
  IS(PLIB_E_INVALID, plib_add(c, "k", 1, "v", 1, 0, 0, NULL));
  IS(PLIB_E_INVALID, plib_replace(c, "k", 1, "v", 1, 0, 0, NULL));
  IS(PLIB_E_INVALID, plib_append(c, "k", 1, "v", 1, 0, 0, NULL));
  IS(PLIB_E_INVALID, plib_prepend(c, "k", 1, "v", 1, 0, 0, NULL));
  IS(PLIB_E_INVALID, plib_cas(c, "k", 1, "v", 1, 0, 0, 1, NULL));
  IS(PLIB_E_INVALID, plib_delete(c, "k", 1));
  IS(PLIB_E_INVALID, plib_delete_cas(c, "k", 1, 1));
  IS(PLIB_E_INVALID, plib_incr(c, "k", 1, 1, &n));
  IS(PLIB_E_INVALID, plib_decr(c, "k", 1, 1, &n));
  IS(PLIB_E_INVALID, plib_incr_init(c, "k", 1, 1, 1, 0, &n));
  IS(PLIB_E_INVALID, plib_decr_init(c, "k", 1, 1, 1, 0, &n));
  IS(PLIB_E_INVALID, plib_touch(c, "k", 1, 0));
  IS(PLIB_E_INVALID, plib_flush_all(c, 0));
  IS(PLIB_E_INVALID, plib_mget(c, &get, 1));
  IS(PLIB_E_INVALID, plib_mset(c, &set_request, 1));
  IS(PLIB_E_INVALID, plib_mdelete(c, &delete, 1));
  IS(PLIB_E_INVALID, plib_scan(c, nothing, NULL));
  IS(PLIB_E_INVALID, plib_scan_from(c, &cursor, nothing, NULL));
  IS(PLIB_E_INVALID, plib_stats(c, no_line, NULL));
  IS(PLIB_E_INVALID, plib_info(c, &info));
  IS(PLIB_E_INVALID, plib_check(c, NULL, NULL, &check));
  IS(PLIB_E_INVALID, plib_sweep(c, NULL, NULL, NULL, NULL));
  CHECK(strstr(plib_last_error_message(), "closed"));
  CHECK(plib_isolation(c) == PLIB_ISOLATION_NONE);
  plib_close(c);
}

// One bad (key, length) through every function that takes a key.
static void bad_key(plib_t *c, plib_status_t expected, const void *key, size_t len) {
  char buf[8];
  size_t value_len = 7;
  uint64_t n = 7;
  plib_get_request_t get = {.key = key, .key_len = len, .buf = buf, .buf_len = 8};
  plib_set_request_t set_request = {.key = key, .key_len = len, .value = "v", .value_len = 1};
  plib_delete_request_t delete = {.key = key, .key_len = len};
  IS(expected, plib_get(c, key, len, buf, 8, &value_len, NULL));
  IS(expected, plib_gat(c, key, len, 0, buf, 8, &value_len, NULL));
  IS(expected, plib_set(c, key, len, "v", 1, 0, 0, &n));
  IS(expected, plib_add(c, key, len, "v", 1, 0, 0, &n));
  IS(expected, plib_replace(c, key, len, "v", 1, 0, 0, &n));
  IS(expected, plib_append(c, key, len, "v", 1, 0, 0, &n));
  IS(expected, plib_prepend(c, key, len, "v", 1, 0, 0, &n));
  IS(expected, plib_cas(c, key, len, "v", 1, 0, 0, 1, &n));
  IS(expected, plib_delete(c, key, len));
  IS(expected, plib_delete_cas(c, key, len, 1));
  IS(expected, plib_incr(c, key, len, 1, &n));
  IS(expected, plib_decr(c, key, len, 1, &n));
  IS(expected, plib_incr_init(c, key, len, 1, 1, 0, &n));
  IS(expected, plib_decr_init(c, key, len, 1, 1, 0, &n));
  IS(expected, plib_touch(c, key, len, 0));
  IS(PLIB_OK, plib_mget(c, &get, 1));
  IS(PLIB_OK, plib_mset(c, &set_request, 1));
  IS(PLIB_OK, plib_mdelete(c, &delete, 1));
  CHECK(get.status == expected && set_request.status == expected && delete.status == expected);
  CHECK(value_len == 7 && n == 7);
}

// One bad (value, length) through every function that stores.
static void bad_value(plib_t *c, plib_status_t expected, const void *value, size_t len) {
  plib_set_request_t request = {.key = "k", .key_len = 1, .value = value, .value_len = len};
  IS(expected, plib_set(c, "k", 1, value, len, 0, 0, NULL));
  IS(expected, plib_add(c, "absent", 6, value, len, 0, 0, NULL));
  IS(expected, plib_replace(c, "k", 1, value, len, 0, 0, NULL));
  IS(expected, plib_append(c, "k", 1, value, len, 0, 0, NULL));
  IS(expected, plib_prepend(c, "k", 1, value, len, 0, 0, NULL));
  IS(expected, plib_cas(c, "k", 1, value, len, 0, 0, 1, NULL));
  IS(PLIB_OK, plib_mset(c, &request, 1));
  CHECK(request.status == expected);
}

static void bad_outputs(plib_t *c, char *heap) {
  char buf[64];
  size_t len = 7;
  char *places[] = {heap, heap + 4096, heap + (16 << 20) - 8, heap + 8};
  for (int i = 0; i < 4; i++) {
    void *in = places[i];
    IS(PLIB_E_INVALID, plib_get(c, "k", 1, in, 8, &len, NULL));
    IS(PLIB_E_INVALID, plib_gat(c, "k", 1, 0, in, 8, &len, NULL));
    IS(PLIB_E_INVALID, plib_get(c, "k", 1, buf, sizeof buf, in, NULL));
    IS(PLIB_E_INVALID, plib_get(c, "k", 1, buf, sizeof buf, &len, in));
    IS(PLIB_E_INVALID, plib_gat(c, "k", 1, 0, buf, sizeof buf, &len, in));
    IS(PLIB_E_INVALID, plib_set(c, "k", 1, "changed", 7, 0, 0, in));
    IS(PLIB_E_INVALID, plib_incr(c, "n", 1, 1, in));
    IS(PLIB_E_INVALID, plib_incr_init(c, "fresh", 5, 1, 1, 0, in));
    IS(PLIB_E_INVALID, plib_mget(c, in, 1));
    IS(PLIB_E_INVALID, plib_mset(c, in, 1));
    IS(PLIB_E_INVALID, plib_mdelete(c, in, 1));
    IS(PLIB_E_INVALID, plib_scan_from(c, in, nothing, NULL));
    IS(PLIB_E_INVALID, plib_info(c, in));
    IS(PLIB_E_INVALID, plib_check(c, NULL, NULL, in));
    IS(PLIB_E_INVALID, plib_sweep(c, NULL, NULL, NULL, in));
    plib_get_request_t get = {.key = "k", .key_len = 1, .buf = in, .buf_len = 8};
    IS(PLIB_OK, plib_mget(c, &get, 1));
    CHECK(get.status == PLIB_E_INVALID);
  }
  // Ranges that only reach into the heap, or wrap around it.
  IS(PLIB_E_INVALID, plib_get(c, "k", 1, heap - 4, 8, &len, NULL));
  IS(PLIB_E_INVALID, plib_get(c, "k", 1, heap - 64, 1 << 30, &len, NULL));
  IS(PLIB_E_INVALID, plib_get(c, "k", 1, buf, SIZE_MAX, &len, NULL));
  IS(PLIB_E_INVALID, plib_get(c, "k", 1, NULL, 8, &len, NULL));
  IS(PLIB_E_INVALID, plib_get(c, "k", 1, buf, sizeof buf, NULL, NULL));
  IS(PLIB_E_INVALID, plib_get(c, "k", 1, buf, sizeof buf, (size_t *)(buf + 1), NULL));
  IS(PLIB_E_INVALID, plib_mget(c, NULL, 1));
  IS(PLIB_E_INVALID, plib_mget(c, (plib_get_request_t *)(void *)buf, SIZE_MAX / 8));
  IS(PLIB_E_INVALID, plib_mset(c, (plib_set_request_t *)(void *)buf, SIZE_MAX));
  IS(PLIB_E_INVALID, plib_mdelete(c, (plib_delete_request_t *)(void *)(buf + 1), 1));
  IS(PLIB_E_INVALID, plib_scan(c, NULL, NULL));
  IS(PLIB_E_INVALID, plib_scan_from(c, NULL, nothing, NULL));
  IS(PLIB_E_INVALID, plib_stats(c, NULL, NULL));
  IS(PLIB_E_INVALID, plib_info(c, NULL));
  CHECK(len == 7);
}

static void bad_opening(const char *path) {
  plib_t *out = (plib_t *)1;
  plib_options_t options = {.size = sizeof options};
  plib_create_options_t creation = {.size = sizeof creation, .heap_size = 16 << 20};
  IS(PLIB_E_INVALID, plib_open(NULL, NULL, &out));
  CHECK(out == NULL);
  IS(PLIB_E_INVALID, plib_open(path, NULL, NULL));
  IS(PLIB_E_INVALID, plib_open("", NULL, &out));
  IS(PLIB_E_INVALID, plib_open("..", NULL, &out));
  IS(PLIB_E_NO_HEAP, plib_open("/nowhere/at/all", NULL, &out));
  IS(PLIB_E_NOT_A_HEAP, plib_open("/proc", NULL, &out));
  IS(PLIB_E_NOT_A_HEAP, plib_open("/dev/null", NULL, &out));
  IS(PLIB_E_NOT_A_HEAP, plib_open("/proc/self/exe", NULL, &out));
  options.size = 3;
  IS(PLIB_E_INVALID, plib_open(path, &options, &out));
  options.size = SIZE_MAX;
  IS(PLIB_E_INVALID, plib_open(path, &options, &out));
  options = (plib_options_t){.size = sizeof options, .isolation = 99};
  IS(PLIB_E_INVALID, plib_open(path, &options, &out));
  options = (plib_options_t){.size = sizeof options, .reserved = 1};
  IS(PLIB_E_INVALID, plib_open(path, &options, &out));
  options = (plib_options_t){.size = sizeof options, .isolation = PLIB_ISOLATION_SEALED};
  IS(PLIB_E_ISOLATION, plib_open(path, &options, &out));
  struct {
    plib_options_t known;
    uint64_t later;
  } longer = {.known = {.size = sizeof longer}};
  IS(PLIB_OK, plib_open(path, &longer.known, &out));
  plib_close(out);
  longer.later = 1;
  IS(PLIB_E_INVALID, plib_open(path, &longer.known, &out));

  IS(PLIB_E_EXISTS, plib_create(path, &creation, &out));
  CHECK(out == NULL && strstr(plib_last_error_message(), path));
  char other[4200];
  snprintf(other, sizeof other, "%s.other", path);
  IS(PLIB_E_INVALID, plib_create(other, NULL, &out));
  IS(PLIB_E_INVALID, plib_create(NULL, &creation, &out));
  creation.heap_size = 1;
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  CHECK(strstr(plib_last_error_message(), "at least 8388608"));
  creation.heap_size = UINT64_MAX;
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  creation.heap_size = (uint64_t)1 << 40;
  IS(PLIB_E_NO_SPACE, plib_create(other, &creation, &out));
  CHECK(strstr(plib_last_error_message(), "1099511627776 bytes wanted"));
  creation = (plib_create_options_t){.size = sizeof creation, .heap_size = 16 << 20, .item_size_max = 5 << 20};
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  CHECK(strstr(plib_last_error_message(), "item_size_max is 5242880 but must be at most 4194304"));
  creation = (plib_create_options_t){.size = sizeof creation, .heap_size = 16 << 20, .contexts = 100000};
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  creation = (plib_create_options_t){.size = sizeof creation, .heap_size = 16 << 20, .mode = 01777};
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  creation = (plib_create_options_t){.size = sizeof creation, .heap_size = 16 << 20, .huge = 2};
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  creation = (plib_create_options_t){.size = sizeof creation, .heap_size = 16 << 20, .readable = 2};
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  creation = (plib_create_options_t){.size = sizeof creation, .heap_size = 16 << 20, .reserved = 1};
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  creation = (plib_create_options_t){.size = sizeof creation, .heap_size = 16 << 20, .group = "no such group"};
  IS(PLIB_E_INVALID, plib_create(other, &creation, &out));
  CHECK(strstr(plib_last_error_message(), "no such group"));
  IS(PLIB_E_NO_HEAP, plib_open(other, NULL, &out));
  IS(PLIB_E_NO_HEAP, plib_destroy(other));
  IS(PLIB_E_INVALID, plib_destroy(NULL));
  FILE *file = fopen(other, "w");
  fputs("not a heap", file);
  fclose(file);
  IS(PLIB_E_NOT_A_HEAP, plib_destroy(other));
  IS(PLIB_E_NOT_A_HEAP, plib_open(other, NULL, &out));
  CHECK(remove(other) == 0);
}

int main(int argc, char **argv) {
  (void)argc;
  refused(NULL);
  plib_t *c = create(argv[1]);
  IS(PLIB_OK, set(c, "k", "kept"));
  IS(PLIB_OK, set(c, "n", "41"));
  char *heap = heap_address(argv[1]);
  static char long_key[300];
  bad_key(c, PLIB_E_KEY, "k", 0);
  bad_key(c, PLIB_E_KEY, NULL, 0);
  bad_key(c, PLIB_E_KEY, long_key, 251);
  bad_key(c, PLIB_E_KEY, "k", SIZE_MAX);
  CHECK(strstr(plib_last_error_message(), "1 to 250"));
  bad_key(c, PLIB_E_INVALID, NULL, 1);
  bad_key(c, PLIB_E_INVALID, heap, 8);
  bad_key(c, PLIB_E_INVALID, heap - 4, 8);
  bad_key(c, PLIB_E_INVALID, heap + (16 << 20) - 1, 2);
  bad_key(c, PLIB_E_INVALID, (void *)(UINTPTR_MAX - 3), 8);
  bad_value(c, PLIB_E_INVALID, (void *)(UINTPTR_MAX - 3), 8);
  bad_value(c, PLIB_E_INVALID, NULL, 1);
  bad_value(c, PLIB_E_INVALID, heap + 65536, 100);
  bad_value(c, PLIB_E_INVALID, heap - 1, 2);
  bad_value(c, PLIB_E_TOO_LARGE, "v", SIZE_MAX);
  bad_value(c, PLIB_E_TOO_LARGE, "v", 1 << 20);
  bad_value(c, PLIB_E_TOO_LARGE, NULL, SIZE_MAX);
  bad_outputs(c, heap);
  bad_opening(argv[1]);
  CHECK(has(c, "k", "kept") && has(c, "n", "41"));
  size_t len;
  IS(PLIB_E_NOT_FOUND, plib_get(c, "absent", 6, NULL, 0, &len, NULL));
  IS(PLIB_E_NOT_FOUND, plib_get(c, "fresh", 5, NULL, 0, &len, NULL));
  IS(PLIB_OK, plib_check(c, NULL, NULL, NULL));
  plib_close(c);
  refused(c);
  refused((plib_t *)argv);
  refused((plib_t *)UINTPTR_MAX);
  refused((plib_t *)((uintptr_t)c + 1));
  refused((plib_t *)((uintptr_t)c + 1024));
  return 0;
}
