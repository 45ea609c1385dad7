//! The same-node measurements of plib beside memcached and in-process caches.
