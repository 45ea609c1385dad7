/* The C library in a page: a heap that any number of processes may have open at the same time.
 *
 *     plib create hello --size 64m
 *     make -C examples/c && examples/c/hello
 */
#include <inttypes.h>
#include <plib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(plib_status_t status, const char *what)
{
    if (status != PLIB_OK) {
        fprintf(stderr, "hello: %s: %s\n", what, plib_strerror(status));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "hello";
    plib_t *cache;
    check(plib_open(name, NULL, &cache), name);

    /* A value with flags 0 that expires in a minute. */
    const char *greeting = "hello from C";
    check(plib_set(cache, "greeting", 8, greeting, strlen(greeting), 0, 60, NULL), "set");

    /* The buffer is ours; a value that does not fit gives PLIB_E_TOO_SMALL, and its length. */
    char value[100];
    size_t length;
    check(plib_get(cache, "greeting", 8, value, sizeof value, &length, NULL), "get");
    printf("greeting = %.*s\n", (int)length, value);

    /* Counts in one step, whatever other processes do. add stores only where nothing is. */
    uint64_t visits = 0;
    plib_status_t status = plib_add(cache, "visits", 6, "0", 1, 0, 0, NULL);
    if (status != PLIB_E_NOT_STORED)
        check(status, "add");
    check(plib_incr(cache, "visits", 6, 1, &visits), "incr");
    printf("visits = %" PRIu64 ", by process %ld\n", visits, (long)getpid());

    plib_close(cache);
    return 0;
}
