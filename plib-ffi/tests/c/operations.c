// Every function does what plib.h says.
#include "check.h"
#include <time.h>

static void storing(plib_t *c) {
  uint64_t cas1 = 0, cas2 = 0, cas3 = 0;
  IS(PLIB_OK, plib_set(c, "k", 1, "v1", 2, 7, 0, &cas1));
  char buf[16] = {0};
  size_t len = 0;
  plib_item_t item = {0};
  IS(PLIB_OK, plib_get(c, "k", 1, buf, sizeof buf, &len, &item));
  CHECK(len == 2 && memcmp(buf, "v1", 2) == 0 && item.flags == 7 && item.expiry == 0 && item.cas == cas1 && cas1 != 0);

  IS(PLIB_E_NOT_STORED, plib_add(c, "k", 1, "v2", 2, 0, 0, &cas2));
  CHECK(cas2 == 0 && has(c, "k", "v1"));
  IS(PLIB_OK, plib_add(c, "new", 3, "v2", 2, 0, 0, &cas2));
  CHECK(cas2 != 0 && cas2 != cas1 && has(c, "new", "v2"));
  IS(PLIB_E_NOT_STORED, plib_replace(c, "none", 4, "x", 1, 0, 0, NULL));
  IS(PLIB_OK, plib_replace(c, "new", 3, "v3", 2, 0, 0, NULL));
  IS(PLIB_E_NOT_STORED, plib_append(c, "none", 4, "x", 1, 0, 0, NULL));
  IS(PLIB_E_NOT_STORED, plib_prepend(c, "none", 4, "x", 1, 0, 0, NULL));
  IS(PLIB_OK, plib_append(c, "new", 3, ">", 1, 9, -1, NULL));
  IS(PLIB_OK, plib_prepend(c, "new", 3, "<", 1, 9, -1, &cas3));
  CHECK(has(c, "new", "<v3>"));
  IS(PLIB_OK, plib_get(c, "new", 3, buf, sizeof buf, &len, &item));
  CHECK(item.flags == 0 && item.cas == cas3);

  IS(PLIB_E_EXISTS, plib_cas(c, "k", 1, "v4", 2, 0, 0, cas1 + 1000000, NULL));
  IS(PLIB_E_NOT_FOUND, plib_cas(c, "none", 4, "v4", 2, 0, 0, cas1, NULL));
  IS(PLIB_OK, plib_cas(c, "k", 1, "v4", 2, 0, 0, cas1, &cas2));
  IS(PLIB_E_EXISTS, plib_cas(c, "k", 1, "v5", 2, 0, 0, cas1, NULL));
  CHECK(has(c, "k", "v4"));
  IS(PLIB_E_EXISTS, plib_delete_cas(c, "k", 1, cas1));
  IS(PLIB_OK, plib_delete_cas(c, "k", 1, cas2));
  IS(PLIB_E_NOT_FOUND, plib_delete_cas(c, "k", 1, cas2));
  IS(PLIB_OK, plib_delete(c, "new", 3));
  IS(PLIB_E_NOT_FOUND, plib_delete(c, "new", 3));
}

static void sizes(plib_t *c) {
  char buf[4];
  size_t len = 99;
  IS(PLIB_OK, plib_set(c, "empty", 5, NULL, 0, 0, 0, NULL));
  IS(PLIB_OK, plib_get(c, "empty", 5, NULL, 0, &len, NULL));
  CHECK(len == 0);
  IS(PLIB_OK, set(c, "five", "12345"));
  IS(PLIB_E_TOO_SMALL, plib_get(c, "five", 4, buf, sizeof buf, &len, NULL));
  CHECK(len == 5 && strstr(plib_last_error_message(), "5"));
  IS(PLIB_E_TOO_SMALL, plib_get(c, "five", 4, NULL, 0, &len, NULL));
  CHECK(len == 5);
  char key[250];
  for (int i = 0; i < 250; i++) key[i] = (char)i;  // zero bytes and all
  IS(PLIB_OK, plib_set(c, key, 250, "long", 4, 0, 0, NULL));
  IS(PLIB_OK, plib_get(c, key, 250, buf, sizeof buf, &len, NULL));
  CHECK(len == 4 && memcmp(buf, "long", 4) == 0);
  size_t large = (1 << 20) - 32 - 5;
  char *value = malloc(large + 1), *back = malloc(large + 1);
  for (size_t i = 0; i <= large; i++) value[i] = (char)(i * 31 >> 3);
  IS(PLIB_OK, plib_set(c, "large", 5, value, large, 0, 0, NULL));
  IS(PLIB_OK, plib_get(c, "large", 5, back, large + 1, &len, NULL));
  CHECK(len == large && memcmp(value, back, large) == 0);
  IS(PLIB_E_TOO_LARGE, plib_set(c, "large", 5, value, large + 1, 0, 0, NULL));
  CHECK(strstr(plib_last_error_message(), "1048577") && strstr(plib_last_error_message(), "1048576"));
  IS(PLIB_OK, plib_get(c, "large", 5, back, large + 1, &len, NULL));
  CHECK(len == large);
  free(value);
  free(back);
}

static void numbers(plib_t *c) {
  uint64_t n = 0;
  IS(PLIB_E_NOT_FOUND, plib_incr(c, "n", 1, 1, &n));
  IS(PLIB_E_NOT_FOUND, plib_decr(c, "n", 1, 1, &n));
  IS(PLIB_OK, plib_incr_init(c, "n", 1, 5, 10, 0, &n));
  CHECK(n == 10);
  IS(PLIB_OK, plib_incr_init(c, "n", 1, 5, 10, 0, &n));
  CHECK(n == 15 && has(c, "n", "15"));
  IS(PLIB_OK, plib_decr_init(c, "n", 1, 6, 10, 0, &n));
  CHECK(n == 9);
  IS(PLIB_OK, plib_decr(c, "n", 1, 100, &n));
  CHECK(n == 0);
  IS(PLIB_OK, plib_incr(c, "n", 1, UINT64_MAX, &n));
  CHECK(n == UINT64_MAX);
  IS(PLIB_OK, plib_incr(c, "n", 1, 2, NULL));
  CHECK(has(c, "n", "1") || has(c, "n", "1                   "));
  IS(PLIB_OK, plib_decr_init(c, "m", 1, 1, 3, 0, &n));
  CHECK(n == 3);
  IS(PLIB_OK, set(c, "text", "twelve"));
  n = 77;
  IS(PLIB_E_NOT_NUMERIC, plib_incr(c, "text", 4, 1, &n));
  IS(PLIB_E_NOT_NUMERIC, plib_decr(c, "text", 4, 1, &n));
  CHECK(n == 77 && has(c, "text", "twelve"));
}

static void times(plib_t *c) {
  char buf[8];
  size_t len;
  plib_item_t item;
  IS(PLIB_OK, plib_set(c, "t", 1, "v", 1, 0, 100, NULL));
  IS(PLIB_OK, plib_get(c, "t", 1, buf, sizeof buf, &len, &item));
  int64_t now = time(NULL);
  CHECK(item.expiry >= now + 98 && item.expiry <= now + 101);
  IS(PLIB_OK, plib_touch(c, "t", 1, now + 100 * 86400));
  IS(PLIB_OK, plib_gat(c, "t", 1, 0, buf, sizeof buf, &len, &item));
  IS(PLIB_OK, plib_get(c, "t", 1, buf, sizeof buf, &len, &item));
  CHECK(len == 1 && buf[0] == 'v' && item.expiry == 0);
  IS(PLIB_OK, plib_touch(c, "t", 1, -1));
  IS(PLIB_E_NOT_FOUND, plib_get(c, "t", 1, buf, sizeof buf, &len, NULL));
  IS(PLIB_E_NOT_FOUND, plib_touch(c, "t", 1, 0));
  IS(PLIB_E_NOT_FOUND, plib_gat(c, "t", 1, 0, buf, sizeof buf, &len, NULL));
  IS(PLIB_OK, plib_set(c, "t", 1, "v", 1, 0, -1, NULL));
  IS(PLIB_E_NOT_FOUND, plib_delete(c, "t", 1));
}

static void batches(plib_t *c) {
  enum { N = 40 };
  char keys[N][8], values[N][8], bufs[N][8];
  plib_set_request_t sets[N] = {0};
  plib_get_request_t gets[N] = {0};
  plib_delete_request_t deletes[N] = {0};
  for (int i = 0; i < N; i++) {
    size_t len = (size_t)snprintf(keys[i], sizeof keys[i], "b%d", i);
    memcpy(values[i], keys[i], sizeof keys[i]);
    sets[i] = (plib_set_request_t){.key = keys[i], .key_len = len, .value = values[i], .value_len = len, .flags = (uint32_t)i};
    gets[i] = (plib_get_request_t){.key = keys[i], .key_len = len, .buf = bufs[i], .buf_len = sizeof bufs[i]};
    deletes[i] = (plib_delete_request_t){.key = keys[i], .key_len = len};
  }
  sets[3].key_len = 0;
  gets[4].buf_len = 1;
  IS(PLIB_OK, plib_mset(c, sets, N));
  IS(PLIB_OK, plib_mget(c, gets, N));
  IS(PLIB_OK, plib_mdelete(c, deletes, N));
  for (int i = 0; i < N; i++) {
    CHECK(sets[i].status == (i == 3 ? PLIB_E_KEY : PLIB_OK));
    CHECK(gets[i].status == (i == 3 ? PLIB_E_NOT_FOUND : i == 4 ? PLIB_E_TOO_SMALL : PLIB_OK));
    CHECK(deletes[i].status == (i == 3 ? PLIB_E_NOT_FOUND : PLIB_OK));
    if (i == 4) CHECK(gets[i].value_len == 2);
    if (i > 4) {
      CHECK(gets[i].flags == (uint32_t)i && gets[i].cas == sets[i].cas && gets[i].value_len == sets[i].value_len);
      CHECK(memcmp(bufs[i], keys[i], gets[i].value_len) == 0);
    }
  }
  IS(PLIB_OK, plib_mget(c, NULL, 0));
  IS(PLIB_OK, plib_mset(c, NULL, 0));
  IS(PLIB_OK, plib_mdelete(c, NULL, 0));
}

struct seen {
  plib_t *cache;
  int count, limit;
  char keys[64][8];
};

static int note(void *context, const plib_entry_t *entry) {
  struct seen *seen = context;
  CHECK(entry->key_len < 8 && entry->value_len == entry->key_len && memcmp(entry->key, entry->value, entry->key_len) == 0);
  CHECK(entry->flags == 5 && entry->expiry == 0 && entry->cas != 0);
  // A callback may use the cache.
  size_t len;
  char buf[8];
  IS(PLIB_OK, plib_get(seen->cache, entry->key, entry->key_len, buf, sizeof buf, &len, NULL));
  memcpy(seen->keys[seen->count], entry->key, entry->key_len);
  seen->keys[seen->count++][entry->key_len] = 0;
  return seen->limit && seen->count % seen->limit == 0;
}

static void scans(plib_t *c) {
  IS(PLIB_OK, plib_flush_all(c, 0));
  for (int i = 0; i < 30; i++) {
    char key[8];
    size_t len = (size_t)snprintf(key, sizeof key, "s%d", i);
    IS(PLIB_OK, plib_set(c, key, len, key, len, 5, 0, NULL));
  }
  struct seen all = {.cache = c};
  IS(PLIB_OK, plib_scan(c, note, &all));
  CHECK(all.count == 30);
  struct seen parts = {.cache = c, .limit = 7};
  uint64_t cursor = 0;
  int rounds = 0;
  while (cursor != PLIB_SCAN_END) {
    IS(PLIB_OK, plib_scan_from(c, &cursor, note, &parts));
    CHECK(++rounds < 10);
  }
  CHECK(parts.count == 30 && rounds == 5);
  for (int i = 0; i < 30; i++)
    for (int j = 0; j < i; j++) CHECK(strcmp(parts.keys[i], parts.keys[j]) != 0);
  IS(PLIB_OK, plib_scan_from(c, &cursor, note, &parts));
  CHECK(parts.count == 30 && cursor == PLIB_SCAN_END);
}

struct counters {
  int lines;
  long sets, hits, limit;
};

static void counter(void *context, const char *name, const char *value) {
  struct counters *counters = context;
  counters->lines++;
  if (strcmp(name, "cmd_set") == 0) counters->sets = atol(value);
  if (strcmp(name, "get_hits") == 0) counters->hits = atol(value);
  if (strcmp(name, "limit_maxbytes") == 0) counters->limit = atol(value);
}

static void finding(void *context, const plib_finding_t *finding) {
  fprintf(stderr, "finding: %s at %ju: %ju\n", finding->kind, (uintmax_t)finding->place, (uintmax_t)finding->detail);
  ++*(int *)context;
}

static void frozen(void *context, const plib_frozen_t *owner) {
  fprintf(stderr, "frozen: pid %u, %u buckets\n", owner->pid, owner->buckets);
  ++*(int *)context;
}

static void sweeping(plib_t *c) {
  plib_sweep_report_t report = {.size = sizeof report, .frozen = 9, .readers = 9};
  plib_sweep_options_t options = {.size = sizeof options, .kill = 1, .patience_ms = 50};
  int owners = 0;
  IS(PLIB_OK, plib_sweep(c, &options, frozen, &owners, &report));
  CHECK(owners == 0 && report.frozen == 0 && report.killed == 0 && report.remaining == 0 && report.readers == 0);
  IS(PLIB_OK, plib_sweep(c, NULL, NULL, NULL, NULL));
}

static void about(plib_t *c, const char *path) {
  struct counters counters = {0};
  IS(PLIB_OK, plib_stats(c, counter, &counters));
  CHECK(counters.lines > 30 && counters.sets > 30 && counters.hits > 30 && counters.limit > 8 << 20);
  plib_info_t info = {.size = sizeof info};
  IS(PLIB_OK, plib_info(c, &info));
  CHECK(info.heap_size == 16 << 20 && info.item_size_max == 1 << 20 && info.mode == 0600 && info.contexts >= 2);
  CHECK(strcmp(info.path, path) == 0 && strlen(info.pages) > 0 && info.size == sizeof info);
  CHECK(info.created > 1600000000 && info.isolation == plib_isolation(c) && info.readable == 0);
  CHECK(plib_isolation(c) == PLIB_ISOLATION_NONE || plib_isolation(c) == PLIB_ISOLATION_GUARDED);
  plib_check_t check = {.size = sizeof check};
  int findings = 0;
  IS(PLIB_OK, plib_check(c, finding, &findings, &check));
  CHECK(findings == 0 && check.severe == 0 && check.buckets > 0 && check.items >= 30);
  IS(PLIB_OK, plib_check(c, NULL, NULL, NULL));
  sweeping(c);
  for (uint32_t status = 0; status <= PLIB_E_ISOLATION; status++) {
    CHECK(strlen(plib_strerror((plib_status_t)status)) > 3);
    CHECK(strcmp(plib_strerror((plib_status_t)status), "unknown status") != 0);
  }
  CHECK(strcmp(plib_strerror((plib_status_t)9999), "unknown status") == 0);
  CHECK(strchr(plib_version(), '.'));
}

/* A readable heap; and one of a program that was built before there were any. */
static void readable(const char *path) {
  plib_create_options_t creation = {.size = sizeof creation, .heap_size = 16 << 20, .readable = 1};
  for (uint32_t wanted = 1; wanted != UINT32_MAX; wanted--) {
    plib_t *c;
    creation.size = wanted ? sizeof creation : offsetof(plib_create_options_t, readable);
    IS(PLIB_OK, plib_create(path, &creation, &c));
    plib_info_t info = {.size = sizeof info};
    IS(PLIB_OK, plib_info(c, &info));
    CHECK(info.readable == wanted);
    IS(PLIB_OK, plib_set(c, "key", 3, "value", 5, 0, 0, NULL));
    for (int i = 0; i < 100; i++) CHECK(has(c, "key", "value"));
    info = (plib_info_t){.size = offsetof(plib_info_t, readable), .readable = 77};
    IS(PLIB_OK, plib_info(c, &info));
    CHECK(info.contexts >= 2 && info.readable == 77);
    plib_close(c);
    IS(PLIB_OK, plib_destroy(path));
  }
}

int main(int argc, char **argv) {
  (void)argc;
  CHECK(strcmp(plib_last_error_message(), "") == 0);
  plib_t *c = create(argv[1]);
  storing(c);
  sizes(c);
  numbers(c);
  times(c);
  batches(c);
  scans(c);
  about(c, argv[1]);
  plib_close(c);
  plib_options_t options = {.size = sizeof options};
  IS(PLIB_OK, plib_open(argv[1], &options, &c));
  CHECK(has(c, "s1", "s1"));
  plib_close(c);
  IS(PLIB_OK, plib_destroy(argv[1]));
  IS(PLIB_E_NO_HEAP, plib_open(argv[1], NULL, &c));
  CHECK(c == NULL && strstr(plib_last_error_message(), argv[1]));
  readable(argv[1]);
  return 0;
}
