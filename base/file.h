/* Files and directories. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

/* Reads all of a file into b (appending). ERR_NOT_FOUND, ERR_IO, ERR_TOO_LARGE (b's ceiling). */
int file_read(const char *pathz, struct buf *b, struct err *e);
/* mkdir -p, mode 0700; the names it makes are durable. ERR_IO. */
int file_make_dir(const char *pathz, struct err *e);
/* Makes a name durable that was made, replaced or removed: syncs the directory it stands in. ERR_IO. */
int file_sync_name(const char *pathz, struct err *e);
/* Opens (creating) pathz and takes an exclusive lock that ends with the process. Gives the
 * descriptor; ERR_BUSY when another process holds it, ERR_IO. */
int file_lock(const char *pathz, int *fd, struct err *e);
/* Bytes free for us on the file system of pathz; negative code on failure. */
int64_t file_disk_free(const char *pathz);
/* Writes all n bytes, in spite of short writes and EINTR. 0 or ERR_IO (errno kept). */
int file_write_all(int fd, const void *p, size_t n);
