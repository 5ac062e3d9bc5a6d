/* The recorder: a library to be preloaded, which writes down what a process does to some files, and can have it fail.
 *
 * An event stands in the log before a write begins, and after a sync has ended: what the log says to be durable is, at every moment. That
 * holds as long as the writers of a file take turns, and each syncs what it wrote within its own, as those of LMDB do.
 *
 *     RECORDER_LOG     where events are appended, by any number of processes at once
 *     RECORDER_FILES   the files, which must be there already: paths joined by colons; an event names one by its place in the list
 *     RECORDER_FAIL    "sync:N" or "header:N": the Nth fdatasync, or write of a header page, of the first file is an input/output error
 *
 * An event is a header, in the machine's byte order, and the bytes that are written. The log is appended to by one call for each event, so
 * events of several processes never mix; one that is killed meanwhile may leave half an event at the end.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 8
#define HEADER_PAGES (2 * 4096)

struct event {
    uint8_t kind; /* 'w': a write begins; 'r': that range is durable; 's': the file is; 'f': a planned failure; 'o': anything else */
    uint8_t file;
    uint16_t unused;
    uint32_t length;
    uint64_t offset; /* UINT64_MAX: at the end */
    uint64_t time;   /* of the monotonic clock, in nanoseconds */
};

static ssize_t (*next_write)(int, const void *, size_t);
static ssize_t (*next_writev)(int, const struct iovec *, int);
static ssize_t (*next_pwrite)(int, const void *, size_t, off_t);
static int (*next_fdatasync)(int);
static int (*next_fsync)(int);
static int (*next_ftruncate)(int, off_t);

static int the_log = -1;
static int count;
static dev_t devices[FILES];
static ino_t inodes[FILES];
static char failing; /* 's' or 'h' */
static long until_failure;

__attribute__((constructor)) static void begin(void) {
    struct stat status;
    const char *log = getenv("RECORDER_LOG"), *listed = getenv("RECORDER_FILES"), *fail = getenv("RECORDER_FAIL");
    next_write = dlsym(RTLD_NEXT, "write");
    next_writev = dlsym(RTLD_NEXT, "writev");
    next_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    next_fsync = dlsym(RTLD_NEXT, "fsync");
    next_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    if (!log || !listed)
        return;
    char *rest, *paths = strdup(listed);
    for (char *path = strtok_r(paths, ":", &rest); path; path = strtok_r(NULL, ":", &rest), count++) {
        if (count == FILES || stat(path, &status))
            abort();
        devices[count] = status.st_dev;
        inodes[count] = status.st_ino;
    }
    free(paths);
    if (fail && *fail) {
        failing = *fail;
        until_failure = atol(strchr(fail, ':') + 1);
    }
    the_log = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int file_of(int descriptor) {
    struct stat status;
    if (the_log < 0 || fstat(descriptor, &status))
        return -1;
    for (int file = 0; file < count; file++)
        if (status.st_ino == inodes[file] && status.st_dev == devices[file])
            return file;
    return -1;
}

static void note(char kind, int file, uint64_t offset, size_t length, const struct iovec *parts, int number) {
    struct timespec now;
    struct iovec all[1 + number];
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct event event = {kind, file, 0, length, offset, now.tv_sec * 1000000000ull + now.tv_nsec};
    all[0] = (struct iovec){&event, sizeof event};
    if (number)
        memcpy(all + 1, parts, number * sizeof *parts);
    size_t size = sizeof event + (number ? length : 0);
    if (next_writev(the_log, all, 1 + number) != (ssize_t)size)
        abort(); /* half a log proves nothing */
}

/* Whether it is this call's turn to fail. */
static int fails(char kind, int file) {
    return failing == kind && file == 0 && __atomic_sub_fetch(&until_failure, 1, __ATOMIC_SEQ_CST) == 0;
}

static ssize_t record(int descriptor, int file, off_t offset, const struct iovec *parts, int number, ssize_t (*go)(int, const struct iovec *, int, off_t)) {
    size_t length = 0;
    for (int part = 0; part < number; part++)
        length += parts[part].iov_len;
    int flags = fcntl(descriptor, F_GETFL);
    uint64_t where = flags & O_APPEND ? UINT64_MAX : (uint64_t)offset;
    note('w', file, where, length, parts, number);
    ssize_t result = go(descriptor, parts, number, offset);
    if (offset < HEADER_PAGES && where != UINT64_MAX && fails('h', file)) { /* it is in the page cache, and never gets to the disk */
        note('f', file, where, length, NULL, 0);
        errno = EIO;
        return -1;
    }
    if (flags & O_DSYNC && result == (ssize_t)length)
        note('r', file, where, length, NULL, 0);
    return result;
}

static ssize_t go_write(int descriptor, const struct iovec *parts, int number, off_t offset) {
    (void)number, (void)offset;
    return next_write(descriptor, parts->iov_base, parts->iov_len);
}

static ssize_t go_writev(int descriptor, const struct iovec *parts, int number, off_t offset) {
    (void)offset;
    return next_writev(descriptor, parts, number);
}

static ssize_t go_pwrite(int descriptor, const struct iovec *parts, int number, off_t offset) {
    (void)number;
    return next_pwrite(descriptor, parts->iov_base, parts->iov_len, offset);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
    int file = file_of(descriptor);
    struct iovec part = {(void *)bytes, length};
    if (file < 0)
        return next_write(descriptor, bytes, length);
    return record(descriptor, file, lseek(descriptor, 0, SEEK_CUR), &part, 1, go_write);
}

ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    int file = file_of(descriptor);
    if (file < 0)
        return next_writev(descriptor, parts, number);
    return record(descriptor, file, lseek(descriptor, 0, SEEK_CUR), parts, number, go_writev);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset) {
    int file = file_of(descriptor);
    struct iovec part = {(void *)bytes, length};
    if (file < 0)
        return next_pwrite(descriptor, bytes, length, offset);
    return record(descriptor, file, offset, &part, 1, go_pwrite);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
    return pwrite64(descriptor, bytes, length, offset);
}

static int sync_with(int (*next)(int), int descriptor) {
    int file = file_of(descriptor);
    if (file >= 0 && fails('s', file)) {
        note('f', file, 0, 0, NULL, 0);
        errno = EIO;
        return -1;
    }
    int result = next(descriptor);
    if (file >= 0 && !result)
        note('s', file, 0, 0, NULL, 0);
    return result;
}

int fdatasync(int descriptor) { return sync_with(next_fdatasync, descriptor); }

int fsync(int descriptor) { return sync_with(next_fsync, descriptor); }

/* What nobody can replay: whoever reads the log refuses it. */
int ftruncate64(int descriptor, off64_t length) {
    int file = file_of(descriptor);
    if (file >= 0)
        note('o', file, length, 0, NULL, 0);
    return next_ftruncate(descriptor, length);
}

int ftruncate(int descriptor, off_t length) { return ftruncate64(descriptor, length); }

ssize_t pwritev(int descriptor, const struct iovec *parts, int number, off_t offset) {
    int file = file_of(descriptor);
    if (file >= 0)
        note('o', file, offset, 0, NULL, 0);
    ssize_t (*next)(int, const struct iovec *, int, off_t) = (ssize_t (*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, "pwritev");
    return next(descriptor, parts, number, offset);
}
