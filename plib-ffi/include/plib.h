/* plib: one memcached-like cache, shared by the processes of a machine that run its code themselves.
 *
 * Made by cbindgen from plib-ffi/src/c; do not edit. After a change there:
 *     PLIB_UPDATE_HEADER=1 cargo test -p plib-ffi --test header
 *
 * Caveats
 * - Any process that may write the heap's file can damage every item in it. Isolation "guarded" keeps a program's own
 *   mistakes out of the heap; docs/protection.md.
 * - A handle works in a forked child, which becomes a client of its own on its first call. The child must be able to open
 *   the heap's file again: one that has given up that right since the parent opened it gets PLIB_E_PERMISSION.
 * - In a signal handler, use the operations on items (plib_get to plib_flush_all, and the batches) only, in a thread that
 *   used the handle before. One that interrupted an operation on the same handle works beside it; where it needs what that
 *   operation holds, it gets PLIB_E_BUSY.
 */

#ifndef PLIB_H
#define PLIB_H

#include <stddef.h>
#include <stdint.h>

// The cursor behind the last item.
#define PLIB_SCAN_END UINT64_MAX

// Bytes of the text fields of plib_info_t, with their final zero.
#define PLIB_PATH_SIZE 4096

// Bytes of plib_info_t.pages.
#define PLIB_PAGES_SIZE 64

// Bytes of plib_frozen_t.name, with its final zero.
#define PLIB_PROCESS_NAME_SIZE 16

// What a function answers. Any but PLIB_OK means that nothing was changed or written, unless said otherwise.
typedef enum {
  // Done.
  PLIB_OK = 0,
  // No live item has this key.
  PLIB_E_NOT_FOUND = 1,
  // The item has another cas value than the one given; or a heap of this name exists.
  PLIB_E_EXISTS = 2,
  // The condition of add, replace, append or prepend did not hold.
  PLIB_E_NOT_STORED = 3,
  // 32 bytes of header, key and value together are more than the heap's item_size_max.
  PLIB_E_TOO_LARGE = 4,
  // The key is empty or longer than 250 bytes.
  PLIB_E_KEY = 5,
  // incr or decr on a value that is not a decimal number of at most 64 bits.
  PLIB_E_NOT_NUMERIC = 6,
  // A stopped process holds what is needed, or all op contexts are in use; try again.
  PLIB_E_BUSY = 7,
  // The buffer is smaller than the value; *value_len says what is needed.
  PLIB_E_TOO_SMALL = 8,
  // A pointer is null, misaligned or into the heap, the handle is closed or none, or a number has no meaning.
  PLIB_E_INVALID = 9,
  // There is no heap of that name.
  PLIB_E_NO_HEAP = 10,
  // No block is free and nothing can be evicted.
  PLIB_E_NO_MEMORY = 11,
  // The file's mode does not allow it.
  PLIB_E_PERMISSION = 12,
  // The file system has not the space.
  PLIB_E_NO_SPACE = 13,
  // The file is not a plib heap.
  PLIB_E_NOT_A_HEAP = 14,
  // The heap was made by a build with another layout.
  PLIB_E_LAYOUT = 15,
  // The heap's header or tables contradict themselves.
  PLIB_E_DAMAGED = 16,
  // The machine stopped while the heap was in use on a disk file.
  PLIB_E_DIRTY = 17,
  // A table is full: clients of the heap, or open handles of the process.
  PLIB_E_FULL = 18,
  // The operating system refused.
  PLIB_E_IO = 19,
  // The wanted isolation is not to be had.
  PLIB_E_ISOLATION = 20,
} plib_status_t;

// What keeps a program out of the heap between calls.
typedef enum {
  // Nothing: the heap is mapped readable and writable.
  PLIB_ISOLATION_NONE = 0,
  // The heap is inaccessible outside calls.
  PLIB_ISOLATION_GUARDED = 1,
  // As guarded, against a program that means harm.
  PLIB_ISOLATION_SEALED = 2,
} plib_isolation_t;

// What became of a frozen owner.
typedef enum {
  // It was reported, as the policy wants.
  PLIB_FATE_REPORTED = 0,
  // Its process was killed, and what it held was taken back.
  PLIB_FATE_KILLED = 1,
  // Its process or thread ended by itself, and what it held was taken back.
  PLIB_FATE_GONE = 2,
  // It went on just before it would have been killed, and was let live.
  PLIB_FATE_RESUMED = 3,
  // This process may not look at it or may not kill it.
  PLIB_FATE_PERMISSION_DENIED = 4,
  // No process that can be seen from here is surely the one.
  PLIB_FATE_NOT_FOUND = 5,
  // It is a thread of this very process.
  PLIB_FATE_THIS_PROCESS = 6,
  // It is the first process of this pid namespace.
  PLIB_FATE_INIT = 7,
  // It was killed and is not gone yet: a frozen control group (v1), or a wait in the kernel.
  PLIB_FATE_LINGERS = 8,
  // The operating system refused; `error` says why.
  PLIB_FATE_FAILED = 9,
} plib_fate_t;

// A handle on an open heap, for all threads, and after fork for the child too. It is a number, not a pointer: nothing is
// read through it, and a closed, forged or NULL one gives PLIB_E_INVALID.
typedef struct plib_t plib_t;

// What a program wants of a heap that it opens. Set all to zero, then `size`, then what is wanted.
typedef struct {
  // sizeof(plib_options_t).
  size_t size;
  // The least isolation accepted, a plib_isolation_t. More is given where it can be had (see PLIB_ISOLATION).
  uint32_t isolation;
  // Must be 0.
  uint32_t reserved;
} plib_options_t;

// How a heap is to be made. Set all to zero, then `size` and `heap_size`, then what is wanted.
typedef struct {
  // sizeof(plib_create_options_t).
  size_t size;
  // Bytes of the heap, 8 MiB to 1 TiB.
  uint64_t heap_size;
  // Largest item, bytes of header (32), key and value; 0 is 1 MiB, or a quarter of a smaller heap.
  uint32_t item_size_max;
  // How many threads of all processes can work at a time; 0 chooses by the heap's size.
  uint32_t contexts;
  // The file's permission bits; 0 is 0600.
  uint32_t mode;
  // 1 to ask for 2 MiB pages.
  uint32_t huge;
  // The file's group, by name or number; NULL leaves it to the system.
  const char *group;
  // 1 to let programs read the heap without a gate where it is guarded: they may read all of it, and still write nothing.
  uint32_t readable;
  // Must be 0.
  uint32_t reserved;
} plib_create_options_t;

// What is kept with a value.
typedef struct {
  // The value that plib_cas wants; another after each change.
  uint64_t cas;
  // The number that the program stored with it.
  uint32_t flags;
  // When it expires, in unix seconds; 0 is never.
  uint32_t expiry;
} plib_item_t;

// One get of a batch. The first four fields are the program's, the others the answer.
typedef struct {
  // In: the key.
  const void *key;
  // In: its length.
  size_t key_len;
  // In: where the value goes.
  void *buf;
  // In: how much fits there.
  size_t buf_len;
  // Out: the value's length, also with PLIB_E_TOO_SMALL.
  size_t value_len;
  // Out: the item's cas value.
  uint64_t cas;
  // Out: the item's flags.
  uint32_t flags;
  // Out: when it expires, in unix seconds; 0 is never.
  uint32_t expiry;
  // Out: a plib_status_t.
  uint32_t status;
  // Unused.
  uint32_t pad;
} plib_get_request_t;

// One set of a batch. `cas` and `status` are the answer, the others the program's.
typedef struct {
  // In: the key.
  const void *key;
  // In: its length.
  size_t key_len;
  // In: the value.
  const void *value;
  // In: its length.
  size_t value_len;
  // In: as for plib_set.
  int64_t exptime;
  // Out: the item's cas value.
  uint64_t cas;
  // In: the item's flags.
  uint32_t flags;
  // Out: a plib_status_t.
  uint32_t status;
} plib_set_request_t;

// One delete of a batch.
typedef struct {
  // In: the key.
  const void *key;
  // In: its length.
  size_t key_len;
  // Out: a plib_status_t.
  uint32_t status;
  // Unused.
  uint32_t pad;
} plib_delete_request_t;

// An item as a scan finds it. Key and value are the callback's until it returns.
typedef struct {
  // The key.
  const void *key;
  // Its length.
  size_t key_len;
  // The value.
  const void *value;
  // Its length.
  size_t value_len;
  // The item's cas value.
  uint64_t cas;
  // The item's flags.
  uint32_t flags;
  // When it expires, in unix seconds; 0 is never.
  uint32_t expiry;
} plib_entry_t;

// What a scan calls for each item; any other answer than 0 ends the scan. It may use the cache, and close it.
typedef int (*plib_scan_fn)(void *context, const plib_entry_t *entry);

// What plib_stats calls for each counter, with memcached's names where it has them.
typedef void (*plib_stat_fn)(void *context, const char *name, const char *value);

// A heap's file and limits. Set `size` before the call.
typedef struct {
  // sizeof(plib_info_t).
  size_t size;
  // Bytes of the heap.
  uint64_t heap_size;
  // When it was created, in unix seconds.
  uint64_t created;
  // Superblocks of 64 KiB for items and index.
  uint32_t superblocks;
  // How many threads of all processes can work at a time.
  uint32_t contexts;
  // How many processes can have it open.
  uint32_t clients;
  // Largest item, bytes of header (32), key and value.
  uint32_t item_size_max;
  // The file's permission bits.
  uint32_t mode;
  // Its owner.
  uint32_t uid;
  // Its group.
  uint32_t gid;
  // A plib_isolation_t.
  uint32_t isolation;
  // The pages that this process has it in, for people to read.
  char pages[PLIB_PAGES_SIZE];
  // The file.
  char path[PLIB_PATH_SIZE];
  // 1 if programs may read it without a gate.
  uint32_t readable;
  // 0.
  uint32_t reserved;
} plib_info_t;

// Something that is not as it should be.
typedef struct {
  // Which rule does not hold.
  const char *kind;
  // Where: a bucket, block, superblock or context, as the kind says.
  uint64_t place;
  // What was there.
  uint64_t detail;
  // 1 if data may be wrong; 0 if something is only lost until it is found again.
  int severe;
} plib_finding_t;

// What plib_check calls for each finding.
typedef void (*plib_finding_fn)(void *context, const plib_finding_t *finding);

// What a check counted. Set `size` before the call.
typedef struct {
  // sizeof(plib_check_t).
  size_t size;
  // Items in the index.
  uint64_t items;
  // Bytes of their headers, keys and values.
  uint64_t bytes;
  // Buckets.
  uint64_t buckets;
  // Free blocks.
  uint64_t free_blocks;
  // Blocks that operations hold at the moment.
  uint64_t claimed_blocks;
  // Fragments of large values.
  uint64_t fragments;
  // Findings.
  uint64_t findings;
  // Severe ones among them.
  uint64_t severe;
} plib_check_t;

// What a sweep does about frozen owners. Set all to zero, then `size`, then what is wanted.
typedef struct {
  // sizeof(plib_sweep_options_t).
  size_t size;
  // 1 to kill the processes of frozen owners (SIGKILL) and take back what they held; 0 to report them.
  uint32_t kill;
  // How long an owner must not have moved at all to count as frozen, in ms; 0 is 2000.
  uint32_t patience_ms;
  // How long to wait for a killed process to be gone, in ms; 0 is 5000.
  uint32_t wait_ms;
  // Must be 0.
  uint32_t reserved;
} plib_sweep_options_t;

// A thread that is inside an operation, holds what others wait for, and does not get on.
typedef struct {
  // sizeof(plib_frozen_t).
  size_t size;
  // The inode of its pid namespace; 0 if it is not known.
  uint64_t pid_namespace;
  // How long it has been seen not to move.
  uint64_t still_ms;
  // Its pid, in its own pid namespace.
  uint32_t pid;
  // Its thread id there; 0 if it is not known.
  uint32_t thread;
  // Its pid as it is seen from here; 0 if it is not, and then `uid`, `state` and `name` are 0 too.
  uint32_t pid_here;
  // Who runs it.
  uint32_t uid;
  // How many buckets it has locked, 0 to 2; writers of their keys get PLIB_E_BUSY.
  uint32_t buckets;
  // 1 if it holds the right to reserve for a large value; large stores get PLIB_E_BUSY.
  uint32_t large;
  // 1 if it is changing the use of a superblock.
  uint32_t superblock;
  // A plib_fate_t.
  uint32_t fate;
  // errno for PLIB_FATE_FAILED.
  int error;
  // What its thread does, by the kernel's letter: 'T' stopped, 't' traced, 'S' or 'D' asleep, 'R' runnable.
  char state;
  // The name of its program.
  char name[PLIB_PROCESS_NAME_SIZE];
} plib_frozen_t;

// What plib_sweep calls for each frozen owner. The struct is gone after the call.
typedef void (*plib_frozen_fn)(void *context, const plib_frozen_t *owner);

// What a sweep found and did. Set `size` before the call.
typedef struct {
  // sizeof(plib_sweep_report_t).
  size_t size;
  // Op contexts of the dead that were recovered.
  uint64_t recovered_contexts;
  // Frozen owners found.
  uint64_t frozen;
  // Those among them whose processes were killed and recovered.
  uint64_t killed;
  // Those for whom others still have to wait.
  uint64_t remaining;
  // Readers that do not get on; nobody waits for them.
  uint64_t readers;
} plib_sweep_report_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The words for a status; never NULL, never to be freed.
const char *plib_strerror(plib_status_t status);

// What this thread's last failed call had to say: the name, the limit, the way out. Valid until its next call that
// fails or asks; "" before the first failure. Successful calls do not change it. Not for signal handlers.
const char *plib_last_error_message(void);

// Opens a heap. `name` is looked up in $PLIB_DIR (default /dev/shm/plib); one with a '/' is a path. `options` may be NULL.
// On failure *out is NULL.
//
// Requires:
// `name` is a C string, `options` NULL or as large as its `size` says, `out` writable.
plib_status_t plib_open(const char *name,
                        const plib_options_t *options,
                        plib_t **out);

// Closes a handle. Threads inside a call on it finish first; later calls get PLIB_E_INVALID. NULL and closed handles are
// left alone. Not for signal handlers.
void plib_close(plib_t *cache);

// Makes a heap, and opens it unless `out` is NULL. The file appears complete, with its space reserved, or not at all.
// PLIB_E_EXISTS if there is one of that name.
//
// Requires:
// `name` is a C string, `options` as large as its `size` says, `out` NULL or writable.
plib_status_t plib_create(const char *name, const plib_create_options_t *options, plib_t **out);

// Removes a heap's file, and its lock file if it has one. Who has it open keeps it until closing it. A file that is no heap is
// left alone.
//
// Requires:
// `name` is a C string.
plib_status_t plib_destroy(const char *name);

// What keeps the program out of the heap between calls. For a handle that is not open: PLIB_ISOLATION_NONE.
plib_isolation_t plib_isolation(const plib_t *cache);

// This library's version, "major.minor.patch".
const char *plib_version(void);

// Copies the value of `key` to `buf`. *value_len gets its length, also with PLIB_E_TOO_SMALL; `info` may be NULL.
//
// Requires:
// Each pointer is readable or writable for its length.
plib_status_t plib_get(plib_t *cache,
                       const void *key,
                       size_t key_len,
                       void *buf,
                       size_t buf_len,
                       size_t *value_len,
                       plib_item_t *info);

// Copies the value of `key` to `buf` as plib_get, and sets when it expires.
//
// Requires:
// As plib_get.
plib_status_t plib_gat(plib_t *cache,
                       const void *key,
                       size_t key_len,
                       int64_t exptime,
                       void *buf,
                       size_t buf_len,
                       size_t *value_len,
                       plib_item_t *info);

// Stores a value, whether or not the key is there. `cas_out` may be NULL.
//
// `exptime` is memcached's: 0 never expires, negative is expired already, up to 30 days is relative to now, anything
// larger is absolute unix time in seconds.
//
// Requires:
// Each pointer is readable or writable for its length.
plib_status_t plib_set(plib_t *cache,
                       const void *key,
                       size_t key_len,
                       const void *value,
                       size_t value_len,
                       uint32_t flags,
                       int64_t exptime,
                       uint64_t *cas_out);

// Stores a value if the key is not there; else PLIB_E_NOT_STORED.
//
// Requires:
// As plib_set.
plib_status_t plib_add(plib_t *cache,
                       const void *key,
                       size_t key_len,
                       const void *value,
                       size_t value_len,
                       uint32_t flags,
                       int64_t exptime,
                       uint64_t *cas_out);

// Stores a value if the key is there; else PLIB_E_NOT_STORED.
//
// Requires:
// As plib_set.
plib_status_t plib_replace(plib_t *cache,
                           const void *key,
                           size_t key_len,
                           const void *value,
                           size_t value_len,
                           uint32_t flags,
                           int64_t exptime,
                           uint64_t *cas_out);

// Puts bytes behind a value that is there, else PLIB_E_NOT_STORED. The item keeps its own flags and expiry: `flags` and
// `exptime` are there for the common shape, as in memcached, and change nothing.
//
// Requires:
// As plib_set.
plib_status_t plib_append(plib_t *cache,
                          const void *key,
                          size_t key_len,
                          const void *value,
                          size_t value_len,
                          uint32_t flags,
                          int64_t exptime,
                          uint64_t *cas_out);

// Puts bytes before a value that is there, else PLIB_E_NOT_STORED. `flags` and `exptime` as for plib_append.
//
// Requires:
// As plib_set.
plib_status_t plib_prepend(plib_t *cache,
                           const void *key,
                           size_t key_len,
                           const void *value,
                           size_t value_len,
                           uint32_t flags,
                           int64_t exptime,
                           uint64_t *cas_out);

// Stores a value if the item still has the cas value `cas`: PLIB_E_EXISTS if it has another, PLIB_E_NOT_FOUND if there
// is none. `cas_out` gets the new one.
//
// Requires:
// As plib_set.
plib_status_t plib_cas(plib_t *cache,
                       const void *key,
                       size_t key_len,
                       const void *value,
                       size_t value_len,
                       uint32_t flags,
                       int64_t exptime,
                       uint64_t cas,
                       uint64_t *cas_out);

// Removes an item; PLIB_E_NOT_FOUND if there is none.
//
// Requires:
// `key` is readable for its length.
plib_status_t plib_delete(plib_t *cache, const void *key, size_t key_len);

// Removes an item if it has the cas value `cas`; PLIB_E_EXISTS if it has another.
//
// Requires:
// `key` is readable for its length.
plib_status_t plib_delete_cas(plib_t *cache, const void *key, size_t key_len, uint64_t cas);

// Adds to a decimal number, wrapping at 64 bits. PLIB_E_NOT_FOUND, PLIB_E_NOT_NUMERIC. `value_out` (may be NULL) gets the sum.
//
// Requires:
// `key` is readable for its length, `value_out` NULL or writable.
plib_status_t plib_incr(plib_t *cache,
                        const void *key,
                        size_t key_len,
                        uint64_t delta,
                        uint64_t *value_out);

// Subtracts from a decimal number, stopping at 0. Else as plib_incr.
//
// Requires:
// As plib_incr.
plib_status_t plib_decr(plib_t *cache, const void *key, size_t key_len, uint64_t delta, uint64_t *value_out);

// Adds to a number, or stores `initial` (with `exptime`) where the key is not there.
//
// Requires:
// As plib_incr.
plib_status_t plib_incr_init(plib_t *cache,
                             const void *key,
                             size_t key_len,
                             uint64_t delta,
                             uint64_t initial,
                             int64_t exptime,
                             uint64_t *value_out);

// Subtracts from a number, or stores `initial` (with `exptime`) where the key is not there.
//
// Requires:
// As plib_incr.
plib_status_t plib_decr_init(plib_t *cache,
                             const void *key,
                             size_t key_len,
                             uint64_t delta,
                             uint64_t initial,
                             int64_t exptime,
                             uint64_t *value_out);

// Sets when an item expires; PLIB_E_NOT_FOUND if there is none.
//
// Requires:
// `key` is readable for its length.
plib_status_t plib_touch(plib_t *cache, const void *key, size_t key_len, int64_t exptime);

// Makes every item vanish that is stored before now, or before `delay` seconds from now (above 30 days: that unix time).
//
// Until then the items stay; a later call replaces a delay that has not passed.
plib_status_t plib_flush_all(plib_t *cache,
                             int64_t delay);

// Many gets, each with its own status. Faster than one by one: all their memory is asked for at once.
//
// Requires:
// There are `n` requests, each with a readable key and a writable buffer.
plib_status_t plib_mget(plib_t *cache, plib_get_request_t *first, size_t n);

// Many sets, each with its own status.
//
// Requires:
// There are `n` requests, each with a readable key and value.
plib_status_t plib_mset(plib_t *cache, plib_set_request_t *first, size_t n);

// Many deletes, each with its own status.
//
// Requires:
// There are `n` requests, each with a readable key.
plib_status_t plib_mdelete(plib_t *cache, plib_delete_request_t *first, size_t n);

// Calls `fn` for every item. Others may read and write meanwhile: an item that is there all the time is given.
//
// Requires:
// `fn` does not let an exception or longjmp out.
plib_status_t plib_scan(plib_t *cache, plib_scan_fn fn, void *context);

// Calls `fn` for the items behind *cursor, and leaves there where to go on: after a stop behind the last item given, at
// the end PLIB_SCAN_END. Begin with 0. A cursor may be kept and used by another process.
//
// Requires:
// As plib_scan, and `cursor` is writable.
plib_status_t plib_scan_from(plib_t *cache, uint64_t *cursor, plib_scan_fn fn, void *context);

// Calls `fn` for every counter. They are the heap's, of all processes since its creation; `pid` and `time` are the caller's.
//
// Requires:
// `fn` does not let an exception or longjmp out.
plib_status_t plib_stats(plib_t *cache,
                         plib_stat_fn fn,
                         void *context);

// Says what a heap is.
//
// Requires:
// `out` is as large as its `size` says, and writable.
plib_status_t plib_info(plib_t *cache, plib_info_t *out);

// Checks every invariant of the heap: PLIB_OK, or PLIB_E_DAMAGED if something severe was found. `fn` (may be NULL) is called for
// the first thousand findings, `out` (may be NULL) gets the counts, both also with PLIB_E_DAMAGED.
//
// Requires:
// `fn` does not let an exception or longjmp out; `out` is NULL or as large as its `size` says, and writable.
plib_status_t plib_check(plib_t *cache,
                         plib_finding_fn fn,
                         void *context,
                         plib_check_t *out);

// Recovers what dead processes and threads held, and looks for owners that are frozen in the middle of an operation: stopped,
// in a frozen control group, under a debugger, stuck. It takes as long as the patience only if somebody stands still from its
// first look on. By the options they are reported, or their processes killed; PLIB_OK either way. A client names its process
// itself: one that lies can have another killed that has the heap mapped for writing. `options` (NULL: report), `fn` and
// `out` may be NULL. Not for signal handlers.
//
// Requires:
// `options` is NULL or as large as its `size` says, `fn` does not let an exception or longjmp out; `out` is NULL or as large
// as its `size` says, and writable.
plib_status_t plib_sweep(plib_t *cache,
                         const plib_sweep_options_t *options,
                         plib_frozen_fn fn,
                         void *context,
                         plib_sweep_report_t *out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PLIB_H */
