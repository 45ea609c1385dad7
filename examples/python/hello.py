#!/usr/bin/env python3
"""The C library from Python, by ctypes: a heap that any number of processes may have open at the same time.

    plib create hello --size 64m
    python3 examples/python/hello.py [HEAP]

The library is found as libplib.so.0 where the loader looks, or by its path in PLIB_LIBRARY.
"""

import ctypes
import os
import sys

PLIB_OK, PLIB_E_NOT_FOUND, PLIB_E_NOT_STORED, PLIB_E_TOO_SMALL = 0, 1, 3, 8


class PlibError(Exception):
    """A status other than PLIB_OK."""


class Plib:
    """An open heap. Keys and values are bytes."""

    def __init__(self, name):
        self._lib = load()
        self._handle = ctypes.c_void_p()
        self._check(self._lib.plib_open(name.encode(), None, ctypes.byref(self._handle)))

    def _check(self, status):
        if status != PLIB_OK:
            raise PlibError(self._lib.plib_strerror(status).decode())

    def set(self, key, value, flags=0, exptime=0):
        """Stores a value."""
        self._check(self._lib.plib_set(self._handle, key, len(key), value, len(value), flags, exptime, None))

    def get(self, key):
        """The value of a key, or None."""
        room, length = 4096, ctypes.c_size_t()
        while True:
            buffer = ctypes.create_string_buffer(room)
            status = self._lib.plib_get(self._handle, key, len(key), buffer, room, ctypes.byref(length), None)
            if status == PLIB_E_NOT_FOUND:
                return None
            if status != PLIB_E_TOO_SMALL:
                self._check(status)
                return buffer.raw[: length.value]
            room = length.value

    def increment(self, key, delta=1):
        """Counts up in one step, whatever other processes do; a counter that is not there begins at 0."""
        status = self._lib.plib_add(self._handle, key, len(key), b"0", 1, 0, 0, None)
        if status != PLIB_E_NOT_STORED:
            self._check(status)
        value = ctypes.c_uint64()
        self._check(self._lib.plib_incr(self._handle, key, len(key), delta, ctypes.byref(value)))
        return value.value

    def close(self):
        """Closes the heap; what is in it stays."""
        self._lib.plib_close(self._handle)


def load():
    """The library, with the types of the functions used here."""
    lib = ctypes.CDLL(os.environ.get("PLIB_LIBRARY", "libplib.so.0"))
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    store = [pointer, text, size, text, size, ctypes.c_uint32, ctypes.c_int64, pointer]
    lib.plib_open.argtypes = [text, pointer, pointer]
    lib.plib_close.argtypes = [pointer]
    lib.plib_close.restype = None
    lib.plib_set.argtypes = lib.plib_add.argtypes = store
    lib.plib_get.argtypes = [pointer, text, size, pointer, size, pointer, pointer]
    lib.plib_incr.argtypes = [pointer, text, size, ctypes.c_uint64, pointer]
    lib.plib_strerror.argtypes = [ctypes.c_uint32]
    lib.plib_strerror.restype = text
    return lib


def main():
    cache = Plib(sys.argv[1] if len(sys.argv) > 1 else "hello")
    cache.set(b"greeting", b"hello from Python", exptime=60)
    print("greeting =", cache.get(b"greeting").decode())
    print("missing =", cache.get(b"missing"))
    print("visits =", cache.increment(b"visits"), "by process", os.getpid())
    cache.close()


if __name__ == "__main__":
    main()
